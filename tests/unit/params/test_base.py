import pydantic
import pytest

from stillhouse.errors import ParamsError
from stillhouse.params.base import Frozen, build, read_yaml, stage_values
from stillhouse.params.document import STAGE_PARAMS, load_document
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
    import yaml

    plain = yaml.safe_load((ROOT / "params.yaml").read_text()) | change
    (tmp_path / "params.yaml").write_text(yaml.safe_dump(plain))
    with pytest.raises(ParamsError, match=said):
        load_document(tmp_path / "params.yaml")
