import re
from datetime import UTC, date, datetime
from html.parser import HTMLParser

import pyarrow.parquet as pq
import pytest

from stillhouse.data.contract import judge
from stillhouse.data.data_docs import make_offline
from stillhouse.data.night_rows import read_snapshot
from stillhouse.params.validate import ValidateParams

NOON = 1_704_110_400


class Tags(HTMLParser):
    """What a browser would see of a page: its tags, their attributes, the text of its styles."""

    def __init__(self):
        super().__init__()
        self.names, self.attributes, self.styles, self.links = set(), set(), [], []

    def handle_starttag(self, tag, attrs):
        self.names.add(tag)
        self.attributes |= {name for name, _ in attrs}
        self.styles += [value or "" for name, value in attrs if name == "style"]
        self.links += [value or "" for name, value in attrs if name == "href"]

    def handle_data(self, data):
        if self.lasttag == "style":
            self.styles.append(data)


@pytest.fixture
def params():
    return ValidateParams(
        min_rows=4,
        min_users=3,
        min_items=2,
        earliest=date(1995, 1, 1),
        rating_min=0.0,
        rating_max=5.0,
        id_length=16,
        volume_min=0.8,
        volume_max=2.0,
        event_weights={"view": 0.4},
        as_of=datetime(2024, 2, 1, tzinfo=UTC),
    )


def check(judgement, name):
    [found] = [one for one in judgement.verdict["checks"] if one["name"] == name]
    return found


def test_a_good_night_passes_every_check(make_snapshot, params, tmp_path):
    rows = read_snapshot(make_snapshot({"2024-01-01": [{}] * 5}, items=[f"i{n}" for n in range(5)]))
    found = judge(rows, params, {"rows": 5}, tmp_path / "docs")
    assert found.accepted.all()
    assert found.verdict["passed"]
    assert all(one["passed"] for one in found.verdict["checks"])
    assert found.profile == {
        "rows": 5,
        "users": 5,
        "items": 5,
        "ratings": 5,
        "order": "timestamp",
        "first_time": NOON,
        "last_time": NOON + 4,
    }


def test_the_suite_counts_the_rows_that_the_rules_do(make_snapshot, params, tmp_path):
    days = {"2024-01-01": [{}] * 5 + [{"rating": 9.0}, {"rating": float("nan")}, {"event": "x"}, {"user_id": None}]}
    found = judge(read_snapshot(make_snapshot(days)), params, None, tmp_path / "docs")
    assert found.verdict["reasons"] == {
        "user_id missing": 1,
        "rating is NaN": 1,
        "rating outside 0 to 5": 1,
        "event type without a weight": 1,
    }
    assert (found.verdict["accepted_rows"], found.verdict["quarantined_rows"]) == (5, 4)
    assert found.verdict["passed"], "bad rows alone break no check of the whole night"


def test_too_few_rows_users_and_items_are_counted_among_accepted_rows(make_snapshot, params, tmp_path):
    days = {"2024-01-01": [{"item_id": "tea"}] * 3 + [{"rating": 9.0}] * 5}
    found = judge(read_snapshot(make_snapshot(days)), params, None, tmp_path / "docs")
    assert not found.verdict["passed"]
    assert [(one["name"], one["value"], one["limit"]) for one in found.verdict["checks"] if not one["passed"]][1:] == [
        ("rows", 3, 4),
        ("items", 1, 2),
    ]
    assert check(found, "rows")["text"] == (
        "a night must have at least 4 accepted rows, found 3 of the snapshot's 8: "
        "bring more data, or lower validate.min_rows (params.yaml)"
    )


@pytest.mark.parametrize(
    ("before", "passed"), [(3, True), (5, True), (6, True), (7, False), (10, False), (2, False), (0, True)]
)
def test_volume_must_be_within_the_band_of_last_nights_accepted_rows(make_snapshot, params, tmp_path, before, passed):
    rows = read_snapshot(make_snapshot({"2024-01-01": [{}] * 5}))
    found = judge(rows, params, {"rows": before}, tmp_path / "docs")
    assert found.verdict["passed"] is passed
    if not passed:
        assert re.fullmatch(
            r"tonight's accepted rows must be 0.8 to 2 times last night's \d+, found 5 \(\d.\d\d times\): "
            r"(is the source cut off|was the source loaded twice)\? If it is meant, widen validate.volume_min and "
            r"validate.volume_max \(params.yaml\) for a night",
            check(found, "volume")["text"],
        )


def test_a_rating_column_without_any_rating_is_a_broken_column(make_snapshot, params, tmp_path):
    rows = read_snapshot(make_snapshot({"2024-01-01": [{"rating": None}] * 5}))
    found = judge(rows, params, None, tmp_path / "docs")
    assert not found.verdict["passed"]
    assert check(found, "ratings")["text"].startswith("some accepted rows must have a rating")


def test_an_empty_snapshot_is_judged_too(make_snapshot, params, tmp_path):
    found = judge(read_snapshot(make_snapshot({})), params, {"rows": 10}, tmp_path / "docs")
    assert "found none: the source has no rows up to as_of" in check(found, "rows")["text"]
    assert found.profile["first_time"] is None


def test_one_file_with_another_schema_stops_the_night(make_snapshot, params, tmp_path):
    folder = make_snapshot({"2024-01-01": [{}] * 50, "2024-01-02": [{}]})
    path = folder / "interactions" / "2024-01-02.parquet"
    pq.write_table(pq.read_table(path).drop_columns(["item_id"]), path)
    found = judge(read_snapshot(folder), params, None, tmp_path / "docs")
    assert not found.verdict["passed"]
    assert "interactions/2024-01-02.parquet: item_id is missing" in check(found, "file: schema")["text"]


def test_no_page_of_the_data_docs_fetches_anything(make_snapshot, params, tmp_path):
    hostile = (
        "<img src=https://evil.example/x.png onerror=alert(1)><script src='https://evil.example/x.js'></script>"
        "<meta http-equiv=refresh content='0;url=https://evil.example'><form action=https://evil.example>"
        "<a href=//evil.example><style>.evil{display:none}</style>"
    )
    days = {"2024-01-01": [{}] * 5 + [{"event": hostile}, {"event": "$x {y} %s"}]}
    found = judge(read_snapshot(make_snapshot(days)), params, None, tmp_path / "docs")
    make_offline(tmp_path / "docs", found.verdict)
    pages = {
        page.relative_to(tmp_path / "docs").parts[0]: page.read_text() for page in (tmp_path / "docs").rglob("*.html")
    }
    assert set(pages) == {"index.html", "expectations", "validations"}
    for text in pages.values():
        tags = Tags()
        tags.feed(text)
        assert not tags.names & {"script", "link", "img", "iframe", "object", "embed", "video", "audio", "source"}
        assert not tags.attributes & {"src", "srcset", "background", "poster", "onerror", "onclick", "onload"}
        assert not re.search(r"url\(|@import", "".join(tags.styles), re.IGNORECASE)
        assert "default-src 'none'" in text
        assert "form" not in tags.names
        assert "refresh" not in re.sub(r"&lt;.*?&gt;", "", text)
        assert ".evil" not in "".join(tags.styles)
        assert "//evil" not in "".join(tags.links)
    assert "event types must be among view" in pages["validations"]
    assert "5 of 7 rows accepted, 2 in quarantine" in pages["index.html"]
    assert not [path for path in (tmp_path / "docs").rglob("*") if path.is_file() and path.suffix != ".html"]


def test_links_of_the_index_lead_to_pages(make_snapshot, params, tmp_path):
    found = judge(read_snapshot(make_snapshot({"2024-01-01": [{}] * 5})), params, None, tmp_path / "docs")
    make_offline(tmp_path / "docs", found.verdict)
    links = re.findall(r'href="([^"]+)"', (tmp_path / "docs" / "index.html").read_text())
    assert len(links) == 2
    assert all((tmp_path / "docs" / link).is_file() for link in links)
