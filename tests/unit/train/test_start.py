from __future__ import annotations

from types import SimpleNamespace

import numpy as np
import pytest
import torch

from stillhouse.distill.start import truncated
from stillhouse.models.build import build
from stillhouse.params.model import ComputeSpec, GruSpec, TrainingSpec
from stillhouse.reporting import SilentReporter
from stillhouse.train.night import Apprentice, first_model
from stillhouse.train.start import start_from

TABLE = torch.from_numpy(np.random.default_rng(1).normal(size=(9, 6))).float()
TABLE[0] = 0.0


def student(width: int):
    return build(GruSpec(kind="gru", width=width, blocks=1, length=5, dropout=0.0), 8, seed=3)


def test_a_student_starts_with_the_teachers_items_and_fresh_weights_otherwise():
    model, fresh = student(4), student(4)
    start_from(model, TABLE)
    assert torch.equal(model.items.weight, truncated(TABLE, 4))
    others = [name for name in model.state_dict() if name != "items.weight"]
    assert all(torch.equal(model.state_dict()[name], fresh.state_dict()[name]) for name in others)


def test_a_student_wider_than_its_teacher_keeps_what_was_drawn_in_the_other_columns():
    model, fresh = student(8), student(8)
    start_from(model, TABLE)
    assert torch.equal(model.items.weight[:, :6], truncated(TABLE, 6))
    assert torch.equal(model.items.weight[1:, 6:], fresh.items.weight[1:, 6:])
    assert not model.items.weight[0].any()


@pytest.mark.parametrize("weights", ["float32", "int8"])
def test_items_that_share_parts_start_from_the_parts_nearest_to_the_cut_table(weights):
    spec = GruSpec(
        kind="gru", width=4, blocks=1, length=5, dropout=0.0, weights=weights, items={"splits": 2, "codes": 8}
    )
    model = build(spec, 8, seed=3)
    start_from(model, TABLE)
    rows, cut = model.items.weight, truncated(TABLE, 4)
    torch.testing.assert_close(rows @ rows.T, cut @ cut.T, atol=0.2, rtol=0.05)


def test_a_student_that_rounds_starts_from_the_values_behind():
    spec = GruSpec(kind="gru", width=4, blocks=1, length=5, dropout=0.0, weights="int8")
    model = build(spec, 8, seed=3)
    start_from(model, TABLE)
    assert torch.equal(model.state_dict()["items.weight"], truncated(TABLE, 4))


def test_a_start_is_made_with_the_threads_of_the_training_so_that_it_repeats(tmp_path):
    before, found = torch.get_num_threads(), []
    apprentice = Apprentice(
        spec=GruSpec(kind="gru", width=4, blocks=1, length=5, dropout=0.0),
        training=TrainingSpec(),
        compute=ComputeSpec(device="cpu", threads=before + 1),
        seed=3,
        previous=tmp_path / "nothing",
        where="train_student.training",
        begin=lambda _: found.append(torch.get_num_threads()),
    )
    first_model(apprentice, SimpleNamespace(n_items=8), None, SilentReporter())
    assert (found, torch.get_num_threads()) == ([before + 1], before)
