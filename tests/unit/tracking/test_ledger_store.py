"""The storage under the ledger's own rule, as tasks wire them."""

import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from functools import partial

import pytest

from stillhouse.errors import RegistryError
from stillhouse.lineage.entry import Entry
from stillhouse.lineage.ledger import chain, counting, following, verify_chain
from stillhouse.tracking import ledger_store
from stillhouse.tracking.ledger_store import LEDGER, append, read


def _entry(key="k", kind="registered", version=1, **fields):
    plain = {"night": None, "name": "gru", "package": "0" * 64, "reason": "r", "actor": "gate"}
    return Entry(key=key, kind=kind, version=version, time="2026-03-12T00:00:00+00:00", **plain | fields)


def _write(workspace, entry):
    return append(workspace, partial(following, entry), counting)


def test_an_empty_ledger_has_no_entries(workspace):
    assert read(workspace) == []


def test_entries_come_back_as_they_were_written(workspace):
    written = [_write(workspace, _entry(key)) for key in ("a", "b")]
    assert read(workspace) == written
    assert [one.entry.key for one in verify_chain(read(workspace))] == ["a", "b"]


def test_a_long_entry_comes_back_whole(workspace, client):
    _write(workspace, _entry("a", reason="ü" * 9500))
    assert verify_chain(read(workspace))[0].entry.reason == "ü" * 9500
    (version,) = client.search_model_versions(f"name = '{LEDGER}'")
    assert max(map(len, version.tags.values())) <= 4000, "no tag is longer than some databases hold"


def test_the_same_act_is_written_once(workspace):
    assert _write(workspace, _entry("a")) == _write(workspace, _entry("a", reason="said otherwise"))
    assert len(read(workspace)) == 1


def test_a_kill_after_the_entry_was_stored_does_not_double_it(workspace, monkeypatch):
    class Killed(BaseException):
        pass

    def put_then_die(store, text):
        put(store, text)
        raise Killed

    put = ledger_store._put
    with monkeypatch.context() as patch:
        patch.setattr(ledger_store, "_put", put_then_die)
        with pytest.raises(Killed):
            _write(workspace, _entry("a"))
    assert _write(workspace, _entry("a")).number == 1
    assert len(read(workspace)) == 1


def test_sixteen_threads_all_get_their_entry_in_one_chain(workspace):
    with ThreadPoolExecutor(16) as pool:
        mine = list(pool.map(lambda key: _write(workspace, _entry(key)), [f"w{i}" for i in range(16)]))
    result = chain(read(workspace))
    assert result.findings == []
    assert {one.entry.key for one in result.entries} == {f"w{i}" for i in range(16)}
    assert {one.number for one in mine} == {one.number for one in result.entries}, "each was told its own"


WRITER = """
import sys
from functools import partial
from pathlib import Path
from stillhouse.lineage.entry import Entry
from stillhouse.lineage.ledger import counting, following
from stillhouse.tracking.ledger_store import append
for index in range(4):
    entry = Entry(key=f"{sys.argv[2]}.{index}", kind="registered", version=1, night=None, name="gru",
                  package="0" * 64, reason="r", actor="gate", time="2026-03-12T00:00:00+00:00")
    append(Path(sys.argv[1]), partial(following, entry), counting)
"""


def test_several_processes_write_one_chain(workspace):
    def run(name):
        command = [sys.executable, "-W", "error", "-c", WRITER, str(workspace), name]
        return subprocess.run(command, capture_output=True, text=True)

    with ThreadPoolExecutor(2) as pool:
        done = list(pool.map(run, "ab"))
    assert [one.stderr for one in done] == [""] * 2
    assert len(verify_chain(read(workspace))) == 8


def test_two_promotions_over_one_champion_cannot_both_win(workspace):
    _write(workspace, _entry("p1", "promoted", 1))
    barrier = []

    def promote(version):
        def compose(records):
            barrier.append(version)
            return following(_entry(f"p{version}", "promoted", version, replaces=1), records)

        try:
            append(workspace, compose, counting)
        except RegistryError as error:
            return str(error)
        return "won"

    with ThreadPoolExecutor(4) as pool:
        ends = list(pool.map(promote, (2, 3, 4, 5)))
    assert ends.count("won") == 1
    losers = [end for end in ends if end != "won"]
    assert all("must replace the champion, which is version" in end for end in losers)
    assert len(verify_chain(read(workspace))) == 2


def test_a_writer_that_never_wins_is_told(workspace, monkeypatch):
    monkeypatch.setattr(ledger_store, "_ATTEMPTS", 2)
    with pytest.raises(RegistryError, match="found another writer first 2 times"):
        append(workspace, lambda records: _entry(str(len(records))).text, lambda records: set())


def test_an_entry_that_was_altered_or_deleted_in_the_registry_is_named(workspace, client):
    for key in "abcd":
        _write(workspace, _entry(key))
    text = read(workspace)[1].text
    client.set_model_version_tag(LEDGER, "2", "entry.0", text.replace('"gate"', '"anna"'))
    assert chain(read(workspace)).findings[0].startswith("entry 2 was altered: its text hashes to")
    client.set_model_version_tag(LEDGER, "2", "entry.0", text)
    assert chain(read(workspace)).findings == []
    client.delete_model_version(LEDGER, "3")
    (finding,) = chain(read(workspace)).findings
    assert "entry 3 was removed" in finding
    with pytest.raises(RegistryError, match="the ledger must be whole, found: entry 4 follows"):
        _write(workspace, _entry("e"))
