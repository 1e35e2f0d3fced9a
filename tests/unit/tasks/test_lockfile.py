"""The lock is read and written as DVC does it: the same objects, the same bytes."""

import copy
import inspect
import itertools
import pickle
from collections import OrderedDict
from datetime import date

import pytest
from dvc import dvcfile
from dvc.utils import strictyaml
from dvc.utils.serialize import LOADERS, EncodingError, YAMLFileCorruptedError, dumps_yaml
from hypothesis import given, settings
from hypothesis import strategies as st
from ruamel.yaml import YAML

from tasks.lockfile import _remembering, quicken

quicken()
DVCS = dvcfile.modify_yaml.replaces

NAMES = st.sampled_from(["prepare", "train@small", "evaluate@a-b_c", "no", "007", "null", "a:b", "x y", "- z"])
TEXTS = st.one_of(
    st.text(st.characters(codec="utf-8", exclude_categories=["Cs", "Cc"], exclude_characters="\x85\u2028\u2029\ufeff")),
    st.sampled_from(
        ["no", "1e3", "0o7", "2024-01-01", "~", "a: b", "# c", "  two  ", "'", "a\n\n  b\n", "x " * 90, "x" * 200]
    ),
)
#: Those of many digits come back from DVC with another last one, even where it only copies them.
FLOATS = st.integers(-(10**6), 10**6).map(lambda number: number / 1000)
VALUES = st.recursive(
    st.one_of(st.none(), st.booleans(), st.integers(), FLOATS, TEXTS),
    lambda inner: st.one_of(st.lists(inner, max_size=3), st.dictionaries(TEXTS.filter(bool), inner, max_size=3)),
    max_leaves=8,
)
ENTRIES = st.dictionaries(st.sampled_from(["cmd", "deps", "params", "outs"]), VALUES, min_size=1)
STAGES = st.dictionaries(NAMES, ENTRIES, max_size=4)


def lock(stages):
    return dumps_yaml({"schema": "2.0", "stages": stages})


def modified(modify, folder, text, change):
    file = folder / "dvc.lock"
    file.unlink(missing_ok=True)
    if text is not None:
        file.write_text(text, encoding="utf-8")
    with modify(str(file)) as data:
        change(data)
    return file.read_text(encoding="utf-8")


def same_as_dvc(folder, text, change):
    told = modified(DVCS, folder, text, change)
    assert modified(dvcfile.modify_yaml, folder, text, change) == told
    return told


NUMBER = itertools.count()


@settings(deadline=None, max_examples=60)
@given(before=STAGES, after=STAGES)
def test_the_bytes_are_dvcs_whatever_changes(tmp_path_factory, before, after):
    def change(data):
        data.setdefault("schema", "2.0")
        data["stages"] = data.get("stages", {})
        data["stages"].update({name: OrderedDict(copy.deepcopy(entry)) for name, entry in after.items()})

    folder = tmp_path_factory.getbasetemp() / f"lock-{next(NUMBER)}"
    folder.mkdir()
    same_as_dvc(folder, lock(before), change)


PARSE = inspect.getclosurevars(strictyaml.parse_yaml).nonlocals["parse"]  # DVC's own


def told(parse, text):
    """What ``parse`` says of a lock, types and order included, or why it is refused."""
    try:
        return pickle.dumps(parse(text, "dvc.lock"))
    except YAMLFileCorruptedError as error:
        return str(error.__cause__)


@settings(deadline=None, max_examples=60)
@given(stages=STAGES)
def test_a_lock_says_what_dvc_reads_in_it(stages):
    text = lock(stages)
    assert repr(strictyaml.parse_yaml(text, "dvc.lock")) == repr(PARSE(text, "dvc.lock"))


@pytest.mark.parametrize(
    "text",
    [
        pytest.param("schema: '2.0'\nstages:\n  one:\n    cmd: a\n  one:\n    cmd: b\n", id="one name twice"),
        pytest.param("schema: '2.0'\nstages:\n  one: &a\n    cmd: a\n  two: *a\n", id="one that is another"),
        pytest.param("schema: '2.0'\nstages:\n  one:\n    cmd: a\nstages: 3\n", id="stages twice"),
        pytest.param("schema: '2.0'\nstages:\n  one:\n    cmd: a\nmore: 3\n", id="something beside stages"),
        pytest.param("schema: '2.0'\nstages:\n  one:\n    cmd: a\n...\n  two:\n    cmd: b\n", id="an end"),
        pytest.param("schema: '2.0'\nstages:\n  one:\n    cmd: a\n---\n  two:\n    cmd: b\n", id="two documents"),
        pytest.param("schema: '2.0'\nstages:\n  # mine\n  one:\n    cmd: a\n", id="a comment"),
        pytest.param("schema: '2.0'\nstages:\n    # mine\n  one:\n    cmd: a\n", id="a comment further in"),
        pytest.param("schema: '2.0'\nstages:\n  one:\n    cmd: [a\n  two:\n    cmd: b\n", id="no end of a list"),
        pytest.param("schema: '2.0'\nstages:\n  one:\n    cmd: 'a\n\n\n      b'\n  two: 3\n", id="a long text"),
        pytest.param("schema: '2.0'\nstages:\n    zero: 1\n  one:\n    cmd: a\n", id="two indents"),
        pytest.param("  one:\n    cmd: a\n", id="no head"),
        pytest.param("schema: '2.0'\nstages:\n  {a: 1, b: 2}\n  \n", id="two in one"),
        pytest.param("schema: '2.0'\nstages:\n  - one\n  - two\n", id="a list"),
        pytest.param("schema: '2.0'\nstages:\n  one: {a: [1,\n    2]}\n\n  two:\n", id="another style"),
    ],
)
def test_a_lock_that_somebody_else_wrote_is_read_as_dvc_reads_it(text):
    assert told(strictyaml.parse_yaml, text) == told(PARSE, text)


def test_of_a_lock_that_was_read_only_the_stages_that_changed_are_parsed():
    read = []

    def parse(text, path, typ="safe"):
        read.append(text)
        return PARSE(text, path, typ=typ)

    quick = _remembering(parse)
    quick(lock({"one": ONE, "two": {"cmd": "a"}}), "dvc.lock")
    read.clear()
    assert quick(lock({"one": ONE, "two": {"cmd": "b"}}), "dvc.lock")["stages"]["two"] == {"cmd": "b"}
    assert read == ["stages:\n  two:\n    cmd: b\n"]


def test_params_that_did_not_change_are_read_once_and_each_caller_has_its_own(tmp_path, monkeypatch):
    loads = []
    load = YAML.load
    monkeypatch.setattr(YAML, "load", lambda self, text: loads.append(text) or load(self, text))
    file = tmp_path / "params.yaml"
    file.write_text("model: {width: 16}\nepochs: 3  # few\n")
    LOADERS[".yaml"](str(file))["model"]["width"] = 32
    assert LOADERS[".yaml"](str(file)) == {"model": {"width": 16}, "epochs": 3}
    assert len(loads) == 1
    file.write_text("model: {width: 8}\nepochs: 3  # few\n")
    assert LOADERS[".yaml"](str(file)) == {"model": {"width": 8}, "epochs": 3}


ONE = {"cmd": "a", "outs": [{"path": "o", "size": 1}]}


@pytest.mark.parametrize(
    "text",
    [
        pytest.param(None, id="no file"),
        pytest.param("", id="an empty file"),
        pytest.param("schema: '2.0'\n", id="no stages"),
        pytest.param("schema: '2.0'\nstages: {}\n", id="no stage"),
        pytest.param("schema: '2.0'\nstages:\n    a:\n        cmd: b\n", id="another indent"),
        pytest.param("schema: '2.0'\ndatasets: []\nstages:\n  a:\n    cmd: b\n", id="datasets"),
        pytest.param("stages:\n  a:\n    cmd: b\nschema: '2.0'\n", id="another order"),
        pytest.param(lock({"a": {"cmd": "b"}, "two": {"cmd": "c"}}), id="others before it"),
        pytest.param(lock({"one": {"cmd": "b"}, "two": {"cmd": "c"}}), id="another one of its name"),
        pytest.param(lock({"one": ONE}), id="the same"),
    ],
)
def test_a_stage_comes_into_any_lock_as_dvc_puts_it(tmp_path, text):
    def change(data):
        data.setdefault("schema", "2.0")
        data["stages"] = data.get("stages", {})
        data["stages"].update({"one": copy.deepcopy(ONE)})

    same_as_dvc(tmp_path, text, change)


@pytest.mark.parametrize("text", [lock({"one": ONE, "two": {"cmd": "c"}})])
def test_whatever_else_is_done_to_a_lock_is_written(tmp_path, text):
    def inside(data):
        data["stages"]["one"]["outs"][0]["size"] = 2

    def another_type(data):
        data["stages"]["one"] = {"cmd": "a", "outs": [{"path": "o", "size": 1.0}]}

    def without(data):
        del data["stages"]["one"]

    def renamed(data):
        data["schema"] = "3.0"

    for change in (inside, another_type, without, renamed):
        assert same_as_dvc(tmp_path, text, change) != text


def test_what_nobody_touched_is_not_taken_apart(tmp_path):
    """A line that DVC would fold otherwise shows that the entry was copied."""
    text = "schema: '2.0'\nstages:\n  one:\n    cmd:   a\n  two:\n    cmd: b\n"
    told = modified(dvcfile.modify_yaml, tmp_path, text, lambda data: data["stages"].update({"two": {"cmd": "c"}}))
    assert told == "schema: '2.0'\nstages:\n  one:\n    cmd:   a\n  two:\n    cmd: c\n"


def test_the_file_is_replaced_and_stays_as_it_was_where_the_change_fails(tmp_path):
    file = tmp_path / "dvc.lock"
    file.write_text(lock({"one": ONE}))
    reader = file.open()
    with dvcfile.modify_yaml(str(file)) as data:
        data["stages"]["two"] = {"cmd": "c"}
    assert reader.read() == lock({"one": ONE}), "whoever reads meanwhile has the whole of what stood there"
    reader.close()

    def fail(data):
        data["stages"].clear()
        raise ValueError("a bug")

    whole = file.read_text()
    with pytest.raises(ValueError, match="a bug"):
        modified(dvcfile.modify_yaml, tmp_path, whole, fail)
    assert file.read_text() == whole


def test_another_file_is_dvcs_own_to_change(tmp_path):
    (tmp_path / "dvc.yaml").write_text("# why\nstages:\n  one:\n    cmd: a  # and how\n")
    with dvcfile.modify_yaml(str(tmp_path / "dvc.yaml")) as data:
        data["stages"]["one"]["cmd"] = "b"
    assert (tmp_path / "dvc.yaml").read_text() == "# why\nstages:\n  one:\n    cmd: b  # and how\n"


def test_what_is_read_again_is_equal_and_nobody_elses():
    text = lock({"one": ONE, "two": {"when": "2024-01-01"}}) + "day: 2024-01-01\n"
    first, second = (strictyaml.parse_yaml(text, "dvc.lock") for _ in range(2))
    assert pickle.dumps(first) == pickle.dumps(second)
    assert first["day"] == date(2024, 1, 1)
    first["stages"]["one"]["outs"].clear()
    assert strictyaml.parse_yaml(text, "dvc.lock") == second
    assert hasattr(strictyaml.parse_yaml(text, "dvc.lock", typ="rt"), "ca"), "comments are remembered where asked for"


def test_what_cannot_be_read_is_refused_each_time_under_its_name():
    for name in ("one.yaml", "two.yaml"):
        with pytest.raises(YAMLFileCorruptedError, match=name):
            strictyaml.parse_yaml("stages: [", name)


def test_a_lock_that_is_no_text_is_refused_as_dvc_refuses_it_and_stays(tmp_path):
    file = tmp_path / "dvc.lock"
    for modify in (dvcfile.modify_yaml, DVCS):
        file.write_bytes(b"schema: '\xff'\n")
        with pytest.raises(EncodingError, match=r"dvc\.lock"), modify(str(file)):
            pass
        assert file.read_bytes() == b"schema: '\xff'\n"


def test_a_second_call_changes_nothing():
    before = dvcfile.modify_yaml, strictyaml.parse_yaml
    quicken()
    assert (dvcfile.modify_yaml, strictyaml.parse_yaml) == before
