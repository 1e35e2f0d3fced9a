import json
from dataclasses import dataclass, replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from stillhouse.errors import RegistryError
from stillhouse.lineage.entry import Anchor, Entry, entry_hash
from stillhouse.lineage.ledger import about, chain, counting, following, head, verify_chain


@dataclass(frozen=True)
class Held:
    number: int
    text: str
    digest: str


def make_entry(key="k", kind="registered", version=1, **fields):
    plain = {"night": None, "name": "gru", "package": "0" * 64, "reason": "r", "actor": "gate"}
    return Entry(key=key, kind=kind, version=version, time="2026-03-12T00:00:00+00:00", **plain | fields)


def store(records, entry, number=None):
    text = following(entry, records)
    return [*records, Held(number or len(records) + 1, text, entry_hash(text))]


def ledger(n):
    records = []
    for i in range(n):
        records = store(records, make_entry(f"k{i}"))
    return records


def edited(record, consistently=False, **changes):
    text = json.dumps(json.loads(record.text) | changes, sort_keys=True, separators=(",", ":"))
    return replace(record, text=text, digest=entry_hash(text) if consistently else record.digest)


def test_an_entry_names_the_hash_of_the_one_before():
    first, second, third = (Entry.model_validate_json(one.text) for one in ledger(3))
    assert first.previous is None
    assert second.previous == entry_hash(first.text)
    assert third.previous == entry_hash(second.text)


def test_the_text_is_canonical():
    entry = make_entry(reason="größer ≥ 2")
    assert json.dumps(json.loads(entry.text), sort_keys=True, separators=(",", ":"), ensure_ascii=False) == entry.text
    assert Entry.model_validate_json(entry.text) == entry
    # the hash of an entry is a promise to every ledger that exists: this line may never change
    assert entry_hash(make_entry().text) == "5eb8d793ed9dc5a1a87ca0e0d9ce38373dc01f108a3124b55b479aae9f809dc8"


def test_a_whole_ledger_has_no_findings():
    assert chain(ledger(5)).findings == []
    assert [one.number for one in verify_chain(reversed(ledger(5)))] == [1, 2, 3, 4, 5]
    assert chain([]).findings == []


def test_a_writer_that_raced_and_lost_is_void_and_no_finding():
    records = ledger(2)
    late = following(make_entry("late"), records)
    records = store(records, make_entry("winner"))
    records.append(Held(4, late, entry_hash(late)))
    records = store(records, make_entry("next"), number=5)
    result = chain(records)
    assert (result.findings, result.void, counting(records)) == ([], [4], {1, 2, 3, 5})


def test_of_two_first_entries_the_lower_number_counts():
    texts = [following(make_entry(key), []) for key in ("a", "b")]
    result = chain([Held(i, text, entry_hash(text)) for i, text in enumerate(texts, 1)])
    assert ([one.entry.key for one in result.entries], result.void, result.findings) == (["a"], [2], [])


def test_an_altered_entry_is_named_and_nothing_else_is():
    records = ledger(5)
    records[2] = edited(records[2], reason="another")
    (finding,) = chain(records).findings
    assert finding.startswith("entry 3 was altered: its text hashes to ")


def test_an_entry_altered_together_with_its_recorded_hash_is_named_by_its_successor():
    records = ledger(5)
    records[2] = edited(records[2], consistently=True, reason="another")
    (finding,) = chain(records).findings
    assert finding.startswith("entry 4 follows ")
    assert finding.endswith("which is gone: entry 3 was altered")


def test_an_entry_made_unreadable_is_named():
    records = ledger(3)
    records[1] = replace(records[1], text="{}")
    findings = chain(records).findings
    assert all(finding.startswith("entry 2 was altered") for finding in findings)
    assert len(findings) == 2


@pytest.mark.parametrize(
    ("gone", "said"),
    [
        ([3], "entry 4 follows {}, which is gone: entry 3 was removed, or entry 2 altered"),
        ([3, 4], "entry 5 follows {}, which is gone: entries 3 to 4 were removed, or entry 2 altered"),
        ([1], "entry 2 follows {}, which is gone: the ledger's beginning was cut off"),
        ([1, 2], "entry 3 follows {}, which is gone: the ledger's beginning was cut off"),
    ],
)
def test_removed_entries_are_named(gone, said):
    records = ledger(6)
    left = [record for record in records if record.number not in gone]
    assert chain(left).findings == [said.format(records[max(gone) - 1].digest[:12])]


def test_an_end_that_was_cut_off_is_named_by_an_anchor():
    records = ledger(4)
    last = head(verify_chain(records))
    anchor = Anchor(last.hash, "git tag night/2026-03-12/closed", last.number)
    assert chain(records, [anchor]).findings == []
    assert chain(records[:3]).findings == [], "without an anchor nobody can tell"
    assert chain(records[:3], [anchor]).findings == [
        f"entry 4 ({anchor.hash[:12]}), which git tag night/2026-03-12/closed names, is gone: it was cut off or altered"
    ]
    (finding,) = chain(records[:3], [Anchor(last.hash, "the remote")]).findings
    assert finding == f"an entry ({last.hash[:12]}), which the remote names, is gone: it was cut off or altered"


def test_a_last_entry_that_was_rewritten_is_named_by_an_anchor():
    records = ledger(3)
    anchor = Anchor(records[2].digest, "the remote", 3)
    records[2] = edited(records[2], consistently=True, actor="anna")
    (finding,) = chain(records, [anchor]).findings
    assert finding.startswith("entry 3 was altered: ")
    assert finding.endswith(f"the remote names {anchor.hash[:12]}")


def test_a_ledger_that_is_not_whole_takes_no_entry():
    records = ledger(3)
    records[1] = edited(records[1], reason="another")
    with pytest.raises(RegistryError, match="the ledger must be whole, found: entry 2 was altered"):
        following(make_entry("new"), records)


def test_an_act_is_one_entry_whatever_its_words():
    records = ledger(2)
    assert following(make_entry("k1", reason="said again"), records) == records[1].text


def test_a_lost_entry_of_the_same_key_does_not_count_as_written():
    lost = following(make_entry("mine"), [])
    records = [*ledger(1), Held(2, lost, entry_hash(lost))]
    assert Entry.model_validate_json(following(make_entry("mine"), records)).previous == records[0].digest


def test_a_promotion_must_replace_the_champion_that_is():
    records = store([], make_entry("a", "promoted", 1))
    with pytest.raises(
        RegistryError, match="must replace the champion, which is version 1; it was decided against none"
    ):
        following(make_entry("b", "promoted", 2), records)
    with pytest.raises(RegistryError, match="which is version 1; it was decided against version 9"):
        following(make_entry("b", "rolled_back", 2, replaces=9), records)
    records = store(records, make_entry("b", "promoted", 2, replaces=1))
    assert chain(records).findings == []


def test_a_forged_promotion_over_another_champion_is_named():
    records = store([], make_entry("a", "promoted", 1))
    text = make_entry("b", "promoted", 2, replaces=7, previous=records[0].digest).text
    records.append(Held(2, text, entry_hash(text)))
    assert chain(records).findings == ["entry 2 replaces version 7, but the champion before it was 1"]


def test_models_have_histories_of_their_own_in_one_ledger():
    records = store([], make_entry("a", "promoted", 1))
    records = store(records, make_entry("b", "promoted", 1, model="teacher"))
    assert chain(records).findings == []


def test_a_time_without_a_zone_is_refused():
    with pytest.raises(ValueError, match="time must have an offset"):
        make_entry().model_validate({**make_entry().model_dump(), "time": "2026-03-12T00:00:00"})


@given(st.integers(2, 8), st.data())
def test_any_single_change_to_a_ledger_is_found(n, data):
    records = ledger(n)
    anchor = Anchor(records[-1].digest, "anchor")
    at = data.draw(st.integers(0, n - 1))
    how = data.draw(st.sampled_from(["remove", "edit", "rewrite", "relink"]))
    if how == "remove":
        del records[at]
    elif how == "edit":
        records[at] = edited(records[at], actor="anna")
    elif how == "rewrite":
        records[at] = edited(records[at], consistently=True, actor="anna")
    else:
        records[at] = edited(records[at], consistently=True, previous="f" * 64)
    assert chain(records, [anchor]).findings


def test_entries_about_one_model_and_version_are_told_from_anothers_of_the_same_number():
    records = store(ledger(2), make_entry("t", model="teacher", version=1))
    records = store(records, make_entry("s", version=2))
    entries = verify_chain(records)
    assert [one.entry.key for one in about(entries)] == ["k0", "k1", "s"]
    assert [one.entry.key for one in about(entries, 1)] == ["k0", "k1"]
    assert [one.entry.key for one in about(entries, 1, model="teacher")] == ["t"]
    assert about(entries, 2, model="teacher") == []


def test_a_champion_of_one_model_is_none_of_another():
    records = store([], make_entry("s", "promoted", 1))
    records = store(records, make_entry("t", "promoted", 1, model="teacher"))  # replaces nobody: its own line is empty
    records = store(records, make_entry("s2", "promoted", 2, replaces=1))
    assert chain(records).findings == []
