import pydantic
import pytest
import yaml

from stillhouse.errors import ParamsError
from stillhouse.params.base import Frozen, build, read_yaml, stage_values
from stillhouse.params.document import STAGE_PARAMS, Document, load_document
from stillhouse.params.source import SourceSpec
from stillhouse.params.train_student import TrainStudentParams
from stillhouse.runner.closure import package_root

ROOT = package_root().parent


class Example(Frozen):
    temperature: float = pydantic.Field(gt=0.0)
    alpha: float = 0.5


def test_an_impossible_value_names_what_was_found_and_where():
    with pytest.raises(
        ParamsError, match=r"temperature: .*greater than 0.*got 0.0 \(params.yaml: train_student.temperature\)"
    ):
        build(Example, {"temperature": 0.0}, "params.yaml: train_student")


def test_an_unknown_setting_lists_the_close_ones():
    with pytest.raises(ParamsError, match="did you mean temperature"):
        build(Example, {"temperature": 1.0, "temperatur": 2.0}, "params.yaml: x")


def shipped():
    return yaml.safe_load((ROOT / "params.yaml").read_text())


def refusal(change):
    """Return what is said of the shipped params.yaml after ``change`` has been made to it."""
    plain = shipped()
    change(plain)
    with pytest.raises(ParamsError) as caught:
        build(Document, plain, "params.yaml")
    assert "\n" not in str(caught.value)
    return str(caught.value)


def test_a_mistyped_kind_of_model_names_the_kinds_the_place_and_the_close_one():
    assert refusal(lambda plain: plain["students"]["gru"]["model"].update(kind="grru")) == (
        "model must be one of gru, transformer; got 'grru' (params.yaml: students.gru.model.kind); did you mean gru?"
    )
    assert refusal(lambda plain: plain["students"]["gru"]["model"].pop("kind")) == (
        "students.gru.model.kind must be one of gru, transformer; found nothing (params.yaml: students.gru.model.kind)"
    )


def test_a_mistyped_choice_names_the_choices_and_the_close_one():
    assert refusal(lambda plain: plain["source"].update(kind="sqll")) == (
        "kind must be one of file, shop, sql; got 'sqll' (params.yaml: source.kind); did you mean sql?"
    )
    assert "got 3 (params.yaml: source.kind)" in refusal(lambda plain: plain["source"].update(kind=3))


def test_an_unknown_setting_inside_a_section_lists_that_sections_close_ones():
    said = refusal(lambda plain: plain["source"]["columns"].update(usr="x"))
    assert said.endswith("got 'usr' (params.yaml: source.columns); did you mean user?")
    said = refusal(lambda plain: plain["students"]["gru"]["model"].update(widht=3))
    assert said.endswith("got 'widht' (params.yaml: students.gru.model); did you mean width or weights?")
    assert "heads" not in said, "a GRU has none"
    assert refusal(lambda plain: plain.update(validat={})).endswith("(params.yaml); did you mean validate or evaluate?")


def test_a_place_is_written_as_the_file_has_it():
    said = refusal(lambda plain: plain["students"]["gru"]["model"].update(width=1))
    assert "(params.yaml: students.gru.model.width)" in said
    assert refusal(lambda plain: plain["students"]["gru"]["model"].pop("width")) == (
        "students.gru.model.width must be set, found nothing (params.yaml: students.gru.model.width)"
    )


@pytest.mark.parametrize(
    "source",
    [
        {"kind": "file", "url": "postgresql://me:hunter2@host/shop"},
        {"kind": "fil", "url": "postgresql://me:hunter2@host/shop", "colour": 1},
        {"url": ["postgresql://me:hunter2@host/shop"]},
        {"url": {"password": "hunter2"}},
        {"password": "hunter2"},
        {"kind": "postgresql://me:hunter2@host/shop"},
        {"postgresql://me:hunter2@host/shop": 1},
        {"columns": {"position": "postgresql://me:hunter2@host/shop"}},
        {"columns": "postgresql://me:hunter2@host/shop"},
        "postgresql://me:hunter2@host/shop",
        ["postgresql://me:hunter2@host/shop"],
    ],
)
def test_no_error_about_a_section_repeats_a_password_in_it(source):
    assert "hunter2" not in refusal(lambda plain: plain.update(source=source))
    with pytest.raises(ParamsError) as caught:
        build(SourceSpec, source, "params.yaml: source")
    assert "hunter2" not in str(caught.value)


def test_a_file_that_is_no_yaml_is_not_quoted(tmp_path):
    (tmp_path / "params.yaml").write_text("seed: 1\nurl: {postgresql://me:hunter2@host/shop\n")
    with pytest.raises(ParamsError, match=r"\(params.yaml: line \d\)") as caught:
        read_yaml(tmp_path / "params.yaml")
    assert "hunter2" not in str(caught.value)


def test_a_section_that_is_none_is_not_quoted():
    with pytest.raises(ParamsError, match="students must be a section") as caught:
        stage_values(TrainStudentParams, {**shipped(), "students": "postgresql://me:hunter2@host/shop"}, {}, "gru")
    assert "hunter2" not in str(caught.value)


def test_a_missing_setting_is_named():
    with pytest.raises(ParamsError, match="temperature must be set"):
        build(Example, {}, "params.yaml: x")


def test_nan_is_refused():
    with pytest.raises(ParamsError, match="alpha"):
        build(Example, {"temperature": 1.0, "alpha": float("nan")}, "params.yaml: x")


@pytest.mark.parametrize(
    ("text", "said"),
    [("- 1\n", "mapping"), ("a: [1\n", "YAML"), ("a: {b: 2026-01-01}\n", "quoted"), (None, "must exist")],
)
def test_a_file_that_is_no_params_file_is_refused_in_one_line(tmp_path, text, said):
    path = tmp_path / "params.yaml"
    if text is not None:
        path.write_text(text)
    with pytest.raises(ParamsError, match=said) as caught:
        read_yaml(path)
    assert "\n" not in str(caught.value)


def test_the_shipped_params_are_valid():
    document, plain = load_document(ROOT / "params.yaml")
    assert set(document.students) == set(plain["students"])


def test_a_stage_gets_its_section_its_shared_keys_and_its_student():
    _, plain = load_document(ROOT / "params.yaml")
    values = stage_values(TrainStudentParams, plain, {}, "gru")
    assert set(values) == set(TrainStudentParams.model_fields)
    assert values["student"] == plain["students"]["gru"]
    with pytest.raises(ParamsError, match="student must be one of"):
        stage_values(TrainStudentParams, plain, {}, "gruu")


@pytest.mark.parametrize("stage", STAGE_PARAMS)
def test_every_shared_key_is_a_key_of_params(stage):
    _, plain = load_document(ROOT / "params.yaml")
    assert set(STAGE_PARAMS[stage].shared) <= set(plain)


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"prepare": {}}, "min_user_events must be set"),
        ({"students": {}}, "students"),
        (
            {"students": {"a/b": {"model": {"kind": "gru", "width": 8, "blocks": 1, "length": 10, "dropout": 0.0}}}},
            "a/b",
        ),
        ({"colour": 1}, "colour"),
    ],
)
def test_a_bad_document_is_refused_before_any_stage_runs(tmp_path, change, said):
    plain = shipped() | change
    (tmp_path / "params.yaml").write_text(yaml.safe_dump(plain))
    with pytest.raises(ParamsError, match=said):
        load_document(tmp_path / "params.yaml")
