"""What MLflow hands on to the loader: its signature must leave ids as they were sent."""

from __future__ import annotations

import dataclasses
import warnings

import numpy as np
import pandas as pd
import pytest
from mlflow.models import Model

from stillhouse.data.vocabulary import Vocabulary
from stillhouse.tracking.artifact import write_artifact


@pytest.fixture
def model(make_sequences, make_package, tmp_path):
    """A registered student of items "1" to "12", each of which recommends the next one, as MLflow loads it."""
    vocabulary, _ = make_sequences([[1, 2, 12], [2, 1, 4]])
    words = Vocabulary.load(vocabulary)
    numbered = dataclasses.replace(words, item_ids=["", *map(str, range(1, words.n_items + 1))])
    numbered.save(tmp_path / "numbered")
    package = make_package(tmp_path / "numbered")
    home = tmp_path / "artifact"
    write_artifact(home, package, statement=b"{}", envelope=None, card="", histories=[["1"]], model=Model())
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        import mlflow.pyfunc

        return mlflow.pyfunc.load_model(str(home))


def answers(model, histories, **params):
    found = model.predict(pd.DataFrame({"history": pd.Series(histories, dtype=object)}), params=params or None)
    return list(zip(found["items"].map(lambda items: items[0]), found["kind"], strict=True))


def test_ids_arrive_as_they_were_sent(model):
    sent = [["11", "12"], np.array(["11", "12"], dtype=object), [11, 12], [np.int64(11)]]
    assert answers(model, sent) == [("1", "personal")] * 3 + [("12", "personal")]


@pytest.mark.parametrize("nothing", [None, float("nan"), []])
def test_a_person_of_whom_nothing_is_known_does_not_spoil_the_others_answers(model, nothing):
    assert answers(model, [["11"], nothing]) == [("12", "personal"), ("1", "popular")]


@pytest.mark.parametrize("wrong", [None, float("nan"), 11.0, True, ["11"]])
def test_an_id_that_is_none_is_refused_and_spoils_no_other(model, wrong):
    with pytest.raises(ValueError, match="an item id must be text or a whole number, got"):
        answers(model, [["12", wrong]])


@pytest.mark.parametrize("wrong", ["12", 12, {"12": 1}, [["12"]], b"12"])
def test_a_history_that_is_no_list_of_ids_is_refused(model, wrong):
    with pytest.raises(ValueError, match=r"must be (a list of item ids|text or a whole number), got"):
        answers(model, [["11"], wrong])


def test_the_scoring_servers_reading_of_json_leaves_ids_alone(model):
    from mlflow.pyfunc.scoring_server import infer_and_parse_data

    read = infer_and_parse_data(
        {"dataframe_records": [{"history": ["12", None]}, {"history": None}]}, model.metadata.signature.inputs
    )
    assert list(read["history"][0]) == ["12", None]
    assert model.predict(read.iloc[1:])["kind"].tolist() == ["popular"]


def test_k_that_is_not_given_is_ten(model):
    found = model.predict(pd.DataFrame({"history": [["11"]]}), params={"k": None})
    assert len(found["items"][0]) == 10
