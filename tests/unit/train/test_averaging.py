"""The running mean of the weights: what it is, and that it is what a training keeps."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch

from stillhouse.models.build import build
from stillhouse.models.protocol import SequenceModel
from stillhouse.params.model import GruSpec
from stillhouse.reporting import SilentReporter
from stillhouse.train.averaging import WeightAverage
from stillhouse.train.job import Job
from stillhouse.train.loop import train

MakeJob = Callable[..., Job]


def model(weights: str = "float32") -> SequenceModel:
    spec = GruSpec.model_validate(
        {"kind": "gru", "width": 4, "blocks": 1, "length": 6, "dropout": 0.0, "weights": weights}
    )
    found = build(spec, 12, seed=1)
    assert isinstance(found, SequenceModel)
    return found


@pytest.mark.parametrize("weights", ["float32", "int8"])
def test_it_is_the_exponential_mean_of_the_weights_that_were_shown(weights: str) -> None:
    trained = model(weights)
    mean = WeightAverage(trained, 3.0)
    expected = trained.state_dict()["items.weight"].clone()
    for done in range(1, 60):
        with torch.no_grad():
            for weight in trained.parameters():
                weight.add_(0.1 * done)
        mean.update(done)
        share = 1.0 - torch.exp(torch.tensor(-1.0 / min(3.0, done / 10 + 1)))
        expected += share * (trained.state_dict()["items.weight"] - expected)
    torch.testing.assert_close(mean.model.state_dict()["items.weight"], expected)
    assert mean.model.state_dict().keys() == trained.state_dict().keys()


def test_what_was_drawn_at_the_start_is_forgotten_however_far_it_reaches() -> None:
    trained = model()
    mean = WeightAverage(trained, 1e9)
    with torch.no_grad():
        for weight in trained.parameters():
            weight.fill_(5.0)
    for done in range(1, 400):
        mean.update(done)
    assert all(bool((weight - 5.0).abs().max() < 0.01) for weight in mean.model.parameters())


@pytest.mark.parametrize("weights", ["float32", "int8"])
def test_the_mean_is_what_is_validated_and_kept(ring_job: MakeJob, weights: str) -> None:
    averaged, last = model(weights), model(weights)
    outcome = train(averaged, ring_job("a", epochs=4, average=5.0), SilentReporter())
    plain = train(last, ring_job("b", epochs=4), SilentReporter())
    assert outcome.losses == plain.losses, "averaging changes nothing of the training itself"
    assert not torch.equal(averaged.items.weight, last.items.weight)
