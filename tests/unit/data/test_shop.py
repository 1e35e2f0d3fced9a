"""The built-in shop is worth learning from, and its days never change."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from functools import cache
from itertools import islice

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pytest

from stillhouse.data.rows import SNAPSHOT_SCHEMA
from stillhouse.data.shop import deliveries, first_as_of, shop_fingerprint, shop_items, shop_rows
from stillhouse.data.shop_catalogue import Catalogue
from stillhouse.data.shop_days import EVENTS
from stillhouse.data.shop_dirt import KINDS
from stillhouse.data.shop_shape import DAYS, FIRST_DAY, shape_of
from stillhouse.errors import ParamsError, SourceError
from stillhouse.params.source import ShopSpec

TINY = ShopSpec(size="tiny")
DEFAULT = ShopSpec()


@cache
def drawn(spec: ShopSpec, days: int = DAYS) -> tuple[dict[str, np.ndarray], Catalogue]:
    """Return the good rows of a shop as arrays, with ``day``, and its catalogue."""
    parts: list[dict[str, np.ndarray]] = []
    catalogue = None
    for number, (rows, _, shop_catalogue) in enumerate(islice(deliveries(spec), days)):
        catalogue = shop_catalogue
        good = rows.wrong == 0
        part = {name: getattr(rows, name)[good] for name in ("user", "item", "time", "event", "rating")}
        parts.append({**part, "day": np.full(int(good.sum()), number)})
    assert catalogue is not None
    return {name: np.concatenate([part[name] for part in parts]) for name in parts[0]}, catalogue


def on(days: int) -> datetime:
    return FIRST_DAY + timedelta(days=days)


def test_rows_of_one_night_are_the_first_rows_of_the_next():
    today, tomorrow = (shop_rows(TINY, on(days)).cast(SNAPSHOT_SCHEMA) for days in (60, 61))
    assert len(tomorrow) > len(today)
    assert tomorrow.slice(0, len(today)).equals(today)
    items = shop_items(TINY, on(60))
    assert shop_items(TINY, on(61)).slice(0, len(items)).equals(items)


def test_the_shop_goes_on_after_its_sixty_days():
    _, catalogue = drawn(DEFAULT, 62)
    rows, _ = drawn(DEFAULT, 62)
    assert (rows["day"] == 61).sum() > 500
    assert len(catalogue) > 1_000
    assert rows["user"].max() >= 2_000


def test_the_same_seed_gives_the_same_rows_and_another_seed_others():
    first = shop_rows(TINY, on(60)).cast(SNAPSHOT_SCHEMA)
    assert shop_rows(TINY, on(60)).cast(SNAPSHOT_SCHEMA).equals(first)
    assert not shop_rows(ShopSpec(size="tiny", seed=8), on(60)).cast(SNAPSHOT_SCHEMA).equals(first)


def test_the_shop_delivers_at_midnight():
    assert shop_rows(TINY, on(3) + timedelta(hours=23)).equals(shop_rows(TINY, on(3)))
    assert shop_fingerprint(TINY, on(3) + timedelta(hours=23)) == shop_fingerprint(TINY, on(3))
    assert shop_fingerprint(TINY, on(4)) != shop_fingerprint(TINY, on(3))
    assert shop_fingerprint(DEFAULT, on(3)) != shop_fingerprint(TINY, on(3))


def test_nothing_is_there_before_the_first_day_is_over():
    with pytest.raises(SourceError, match="2026-01-01"):
        shop_rows(TINY, FIRST_DAY + timedelta(hours=5))


def test_the_first_night_comes_after_sixty_days():
    assert first_as_of(TINY) == datetime(2026, 3, 2, tzinfo=UTC)


@pytest.mark.parametrize(
    ("spec", "users", "items", "rows"),
    [
        (TINY, 120, 80, 3_000),
        (DEFAULT, 2_000, 1_000, 70_000),
        (ShopSpec(size="large"), 20_000, 5_000, 1_000_000),
        (ShopSpec(size="tiny", users=50, items=30, rows=9_000), 50, 30, 9_000),
        (ShopSpec(size="default", rows=20_000), 2_000, 1_000, 20_000),
    ],
)
def test_sizes_are_what_was_asked_for(spec: ShopSpec, users: int, items: int, rows: int):
    good, catalogue = drawn(spec)
    assert len(catalogue) == items
    assert users * 0.75 <= len(np.unique(good["user"])) <= users
    assert good["user"].max() < users
    assert len(good["user"]) == pytest.approx(rows, rel=0.12)


def test_huge_heads_for_ten_million_rows():
    days = islice(deliveries(ShopSpec(size="huge")), 7)
    week = sum(len(rows.user) for rows, _, _ in days)
    assert week * 60 / 7 == pytest.approx(8_000_000, rel=0.2)  # the first week lacks those who come later


def test_more_rows_than_a_day_has_room_for_are_refused():
    with pytest.raises(ParamsError, match=r"source\.shop"):
        shape_of(ShopSpec(size="tiny", users=10, rows=100_000_000))


def test_one_in_a_hundred_rows_is_bad_and_every_kind_comes_up():
    wrong = np.concatenate([rows.wrong for rows, _, _ in islice(deliveries(TINY), DAYS)])
    assert 0.005 < (wrong > 0).mean() < 0.02
    assert set(wrong[wrong > 0] - 1) == set(range(len(KINDS)))


def test_bad_rows_look_bad_in_the_table():
    table = shop_rows(DEFAULT, on(60)).cast(SNAPSHOT_SCHEMA)
    midnight = int(on(60).timestamp())
    items = shop_items(DEFAULT, on(60))["item_id"]
    assert table["user_id"].null_count > 10
    assert table["item_id"].null_count > 10
    assert pc.sum(pc.and_(pc.greater(table["time"], midnight), pc.less(table["time"], 10**10))).as_py() > 10
    assert pc.sum(pc.greater(table["time"], 10**12)).as_py() > 10
    assert pc.sum(pc.invert(pc.is_in(table["item_id"].drop_null(), items.combine_chunks()))).as_py() > 10
    assert pc.sum(pc.greater(table["rating"], 5.0)).as_py() > 10
    assert pc.sum(pc.invert(pc.is_in(table["event"], pa.array(EVENTS)))).as_py() > 10
    keys = ["user_id", "item_id", "time"]
    assert len(table) - len(table.group_by(keys).aggregate([])) > 10
    assert table["unparsed"].null_count == len(table)


def test_good_rows_are_in_order_unique_and_within_their_day():
    good, catalogue = drawn(DEFAULT)
    keys = np.stack([good["user"], good["item"], good["time"]])
    assert np.unique(keys, axis=1).shape[1] == keys.shape[1]
    start = int(FIRST_DAY.timestamp()) + good["day"] * 86_400
    assert (good["time"] > start).all()
    assert (good["time"] < start + 86_400).all()
    assert (np.diff(good["time"]) >= 0).all()
    assert good["item"].max() < len(catalogue)


def test_a_cart_follows_a_view_and_a_purchase_a_cart_of_the_same_item():
    good, _ = drawn(DEFAULT)
    counts = np.bincount(good["event"], minlength=3)
    assert counts[0] > counts[1] > counts[2] > 1_000
    for event in (1, 2):
        later, before = (
            set(zip(good["user"][of], good["item"][of], good["day"][of], strict=True))
            for of in (good["event"] == event, good["event"] == event - 1)
        )
        assert later <= before


def test_purchases_alone_are_rated_from_one_to_five():
    good, _ = drawn(DEFAULT)
    rated = ~np.isnan(good["rating"])
    assert (good["event"][rated] == 2).all()
    assert 0.4 < rated.sum() / (good["event"] == 2).sum() < 0.6
    assert set(good["rating"][rated]) == {1.0, 2.0, 3.0, 4.0, 5.0}


def test_new_users_and_items_come_every_day():
    good, _ = drawn(DEFAULT)
    for name in ("user", "item"):
        first_seen = dict(zip(good[name][::-1], good["day"][::-1], strict=True))
        days = np.bincount(list(first_seen.values()), minlength=DAYS)
        assert (days[30:] > 0).mean() > 0.9, name


def test_no_item_is_looked_at_before_it_is_on_sale():
    shape = shape_of(DEFAULT)
    good, _ = drawn(DEFAULT)
    on_sale = np.array([shape.items_on(day) for day in range(DAYS)])
    assert (good["item"] < on_sale[good["day"]]).all()


def test_items_have_a_long_tail():
    good, catalogue = drawn(DEFAULT)
    counts = np.sort(np.bincount(good["item"], minlength=len(catalogue)))[::-1]
    assert counts[:100].sum() > 0.3 * counts.sum()
    assert np.median(counts) < 0.75 * counts.mean()


def test_tastes_drift():
    """A user's topics of the first twenty days are met less often as time goes by."""
    good, catalogue = drawn(DEFAULT)
    topic = catalogue.topic[good["item"]]
    early = {(u, t) for u, t in zip(good["user"][good["day"] < 20], topic[good["day"] < 20], strict=True)}
    veterans = {user for user, _ in early}

    def known(first: int, last: int) -> float:
        of = (good["day"] >= first) & (good["day"] < last)
        pairs = [(u, t) in early for u, t in zip(good["user"][of], topic[of], strict=True) if u in veterans]
        return float(np.mean(pairs))

    assert known(20, 30) - known(50, 60) > 0.1


def test_order_matters_the_next_item_follows_from_one_of_the_last():
    """What follows one of a user's last four items comes next far more often than after a shuffle."""
    good, catalogue = drawn(DEFAULT)
    views = good["event"] == 0
    user, item = good["user"][views], good["item"][views]
    order = np.argsort(user, kind="stable")

    def linked(user: np.ndarray, item: np.ndarray) -> float:
        hit = np.zeros(len(item) - 4, bool)
        for back in range(1, 5):
            before = item[4 - back : len(item) - back]
            same = user[4 - back : len(item) - back] == user[4:]
            for relation in (catalogue.follower, catalogue.goes_with, catalogue.same_maker):
                hit |= same & (relation[before] == item[4:])
        return float(hit.mean())

    rng = np.random.default_rng(0)
    shuffled = np.lexsort((rng.random(len(user)), user))
    assert linked(user[order], item[order]) > 2.0 * linked(user[shuffled], item[shuffled])


def test_items_have_titles_texts_and_categories_that_tell_them_apart():
    items = shop_items(DEFAULT, on(60))
    _, catalogue = drawn(DEFAULT)
    assert len(set(items["title"].to_pylist())) == len(items) == 1_000
    assert items["item_id"].to_pylist()[:2] == ["i00000", "i00001"]
    categories = items["category"].to_pylist()
    assert all(len(category.split("|")) == 2 for category in categories)
    of_topic = set(zip(catalogue.topic.tolist(), categories, strict=True))
    assert len(of_topic) == len({category for _, category in of_topic}) == 40
    part = int(np.flatnonzero(catalogue.follower >= 0)[0])
    first, second = items["title"][part].as_py(), items["title"][int(catalogue.follower[part])].as_py()
    assert first.rsplit(" ", 1)[0] == second.rsplit(" ", 1)[0]
    assert int(second.rsplit(" ", 1)[1]) == int(first.rsplit(" ", 1)[1]) + 1


def test_a_million_rows_are_drawn_with_every_event_on_its_day():
    table = shop_rows(ShopSpec(size="large"), on(60))
    assert len(table) > 950_000
    assert table.nbytes < 100_000_000
