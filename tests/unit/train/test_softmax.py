"""The loss in parts is the loss on the whole table, and so is its gradient."""

from __future__ import annotations

from dataclasses import replace
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from objectives import on_scores
from teaching import Remembered, Rows

from stillhouse.distill.hard import HardObjective
from stillhouse.distill.mixed import MixedObjective
from stillhouse.distill.protocol import LossParts, PositionBatch, Wanted
from stillhouse.train import softmax
from stillhouse.train.softmax import catalogue_loss, sampled_loss


def _batch(positions: int, items: int) -> PositionBatch:
    draw = torch.Generator().manual_seed(3)
    return PositionBatch(
        targets=torch.randint(1, items + 1, (positions,), generator=draw),
        weights=torch.rand(positions, generator=draw),
        users=torch.zeros(positions, dtype=torch.int64),
        steps=torch.arange(positions),
    )


@pytest.mark.parametrize("cells", [1, 60, 10_000])
@pytest.mark.parametrize("smoothing", [0.0, 0.1])
def test_parts_of_any_size_give_the_loss_and_gradient_of_the_whole_table(monkeypatch, cells, smoothing):
    monkeypatch.setattr(softmax, "_CELLS_CPU", cells)
    monkeypatch.setattr(softmax, "_FEWEST", 1)
    draw = torch.Generator().manual_seed(1)
    hidden = torch.randn(17, 4, generator=draw, dtype=torch.float64)
    table = torch.randn(12, 4, generator=draw, dtype=torch.float64)
    batch, objective = _batch(17, 11), HardObjective(smoothing)
    ours = [tensor.clone().requires_grad_() for tensor in (hidden, table)]
    theirs = [tensor.clone().requires_grad_() for tensor in (hidden, table)]
    found = catalogue_loss(ours[0], ours[1], objective.lesson(batch))
    whole = on_scores(objective, theirs[0] @ theirs[1].T, batch)
    torch.testing.assert_close(found.total, whole.total)
    torch.testing.assert_close(found.parts["hard_loss"], whole.parts["hard_loss"])
    (3.0 * found.total).backward()
    (3.0 * whole.total).backward()
    for mine, reference in zip(ours, theirs, strict=True):
        torch.testing.assert_close(mine.grad, reference.grad)


def test_label_smoothing_is_the_cross_entropy_against_smoothed_labels():
    scores = torch.randn(5, 9, generator=torch.Generator().manual_seed(2), dtype=torch.float64)
    batch = PositionBatch(torch.tensor([1, 2, 3, 8, 8]), torch.ones(5).double(), torch.zeros(5).long(), torch.arange(5))
    expected = torch.nn.functional.cross_entropy(scores[:, 1:], batch.targets - 1, label_smoothing=0.2)
    assert on_scores(HardObjective(0.2), scores, batch).total.item() == pytest.approx(expected.item(), rel=1e-12)


def test_drawn_smoothing_leaves_seen_items_out_too():
    draw = torch.Generator().manual_seed(6)
    hidden, table = torch.randn(4, 3, generator=draw), torch.randn(13, 3, generator=draw)
    batch = PositionBatch(torch.tensor([5, 6, 7, 8]), torch.ones(4), torch.zeros(4).long(), torch.arange(4))
    lesson = HardObjective(0.3, SimpleNamespace(items=np.arange(4, 9), offsets=np.array([0, 5]))).lesson(batch)
    torch.manual_seed(0)
    drawn = torch.unique(torch.randint(1, 13, (400,))).tolist()
    assert drawn == list(range(1, 13))  # all items: nothing is left to chance
    torch.manual_seed(0)
    rows = table.clone().requires_grad_()
    found = sampled_loss(hidden, rows, lesson, 400).total
    torch.testing.assert_close(found, catalogue_loss(hidden, table, lesson).total)
    found.backward()
    assert not rows.grad[4].any()  # everybody has seen it
    seen = Wanted(items=torch.tensor([[2]]), seen=(torch.tensor([0]), torch.tensor([1])), mean=True)
    answer = softmax._estimate(hidden[:1], 12, table[None, [2]], torch.tensor([1]), table[[1]], seen, None)
    assert answer.mean.item() == answer.scores.item()  # no draw is unseen: the target stands for them


def test_half_precision_factors_keep_the_loss_and_the_gradients_direction():
    draw = torch.Generator().manual_seed(4)
    hidden, table = torch.randn(64, 16, generator=draw), torch.randn(40, 16, generator=draw)
    batch = _batch(64, 39)
    grads, losses = [], []
    for dtype in (None, torch.bfloat16):
        state = hidden.clone().requires_grad_()
        found = catalogue_loss(state, table, HardObjective().lesson(batch), dtype=dtype)
        found.total.backward()
        losses.append(found.total.item())
        grads.append(state.grad.flatten())
    assert losses[1] == pytest.approx(losses[0], rel=0.01)
    assert torch.nn.functional.cosine_similarity(*grads, dim=0) > 0.999


class Everything:
    """A lesson whose loss mixes all that can be wanted, each with a slope of its own."""

    def __init__(self, positions: int, items: int) -> None:
        draw = np.random.default_rng(5)
        chosen = np.stack([draw.permutation(np.arange(1, items + 1)) for _ in range(positions)])
        self.slopes = torch.from_numpy(draw.normal(size=(positions, 9)))
        seen = torch.from_numpy(chosen[:, 5:8])
        rows = torch.arange(positions).repeat_interleave(3)
        self.wanted = Wanted(
            items=torch.from_numpy(np.concatenate([chosen[:, :1], chosen[:, 2:4]], axis=1)),
            head=torch.from_numpy(chosen[:, 1:5] * np.array([1, 1, 1, 0])),  # the last place is padding
            seen=(rows, seen.flatten()),
            temperatures=(1.0, 2.0),
            mean=True,
        )

    def loss(self, answer, start, stop):
        said = [answer.log_total, answer.mean, *answer.log_unseen.values(), *answer.log_tail.values()]
        values = torch.cat([answer.scores, torch.stack(said, dim=1)], dim=1)
        total = (values * self.slopes[start:stop]).sum()
        return LossParts(total=total, parts={"loss_part": total.detach()})

    def beside(self, states):
        return LossParts(total=(states**2).sum(), parts={"beside_part": states.detach().sum()})

    def plainly(self, scores, states):
        """The same from the formulas, row by row."""
        wanted, total = self.wanted, (states**2).sum()
        rows, items = wanted.seen
        for row, slopes in enumerate(self.slopes):
            seen = set(items[rows == row].tolist())
            unseen = [item for item in range(1, scores.shape[1]) if item not in seen]
            tail = [item for item in unseen if item not in wanted.head[row].tolist()]
            values = [*scores[row, wanted.items[row]], scores[row, 1:].logsumexp(0), scores[row, unseen].mean()]
            values += [(scores[row, group] / t).logsumexp(0) for group in (unseen, tail) for t in wanted.temperatures]
            total = total + (torch.stack(values) * slopes).sum()
        return total


@pytest.mark.parametrize("queries", [1, 3])
@pytest.mark.parametrize("kind", ["parts", "whole", "sampled"])
def test_all_that_can_be_wanted_is_what_the_formulas_say_and_so_is_its_gradient(monkeypatch, kind, queries):
    monkeypatch.setattr(softmax, "_CELLS_CPU", 40 if kind == "parts" else 10_000)
    monkeypatch.setattr(softmax, "_FEWEST", 1)
    draw = torch.Generator().manual_seed(1)
    hidden = torch.randn(9, 4 * queries, generator=draw, dtype=torch.float64)
    table = torch.randn(13, 4, generator=draw, dtype=torch.float64)
    lesson = Everything(9, 12)
    ours = [tensor.clone().requires_grad_() for tensor in (hidden, table)]
    theirs = [tensor.clone().requires_grad_() for tensor in (hidden, table)]
    if kind == "sampled":  # so many draws that every item is among them: the estimate is then exact
        torch.manual_seed(0)
        found = sampled_loss(*ours, lesson, 500)
    else:
        found = catalogue_loss(*ours, lesson)
    each = [query @ theirs[1].T for query in theirs[0].split(4, dim=1)]
    plain = lesson.plainly(torch.stack(each).max(dim=0).values, theirs[0])
    torch.testing.assert_close(found.total, plain)
    found.total.backward()
    plain.backward()
    for mine, reference in zip(ours, theirs, strict=True):
        torch.testing.assert_close(mine.grad, reference.grad)


def test_sampled_sums_estimate_the_whole_without_bias():
    """The exponentials are unbiased; their mean over many draws is the sum over the catalogue."""
    draw = torch.Generator().manual_seed(1)
    hidden, table = torch.randn(1, 4, generator=draw), torch.randn(41, 4, generator=draw)
    batch = PositionBatch(torch.tensor([7]), torch.ones(1), torch.zeros(1).long(), torch.zeros(1).long())
    exact = (hidden @ table[1:].T).logsumexp(1).exp().item()
    target = (hidden @ table[7]).item()
    torch.manual_seed(3)
    losses = [sampled_loss(hidden, table, HardObjective().lesson(batch), 10).total.item() for _ in range(2000)]
    estimates = np.exp(np.array(losses) + target)
    # One draw in n_items is the target itself, which counts once and exactly: a bias of that order is left.
    assert estimates.mean() == pytest.approx(exact, rel=0.05)
    assert estimates.std() > 0.01 * exact


def _taught(hidden: torch.Tensor, table: torch.Tensor, seen: int, **cut: int):
    """Return a lesson from a teacher whose scores are the student's own."""
    draw, items = np.random.default_rng(0), np.arange(1, len(table))
    store = Remembered(Rows((hidden @ table.T).numpy(), [draw.permutation(items)[:seen] for _ in hidden], **cut))
    positions = store.positions()
    positions = replace(positions, weights=positions.weights.to(hidden.dtype))
    return MixedObjective(store, store, alpha=0.0, temperature=1.0).lesson(positions)


def test_of_all_items_drawn_the_best_unseen_ones_are_those_of_the_whole_table_the_target_among_them():
    class Best:
        """Keeps what it is told of the student's own best items."""

        wanted = Wanted(
            items=torch.tensor([[1], [2], [3]]),
            seen=(torch.tensor([0, 0, 1, 2]), torch.tensor([2, 3, 1, 4])),
            temperatures=(1.0,),
            top=3,
        )

        def __init__(self):
            self.told = []

        def loss(self, answer, start, stop):
            self.told.append((answer.top_items, answer.top_scores.detach()))
            return LossParts(total=answer.top_scores.sum(), parts={})

        def beside(self, states):
            return None

    hidden, table = torch.randn(3, 4, dtype=torch.float64), torch.randn(6, 4, dtype=torch.float64)
    exact, drawn = Best(), Best()
    catalogue_loss(hidden, table, exact)
    sampled_loss(hidden, table, drawn, 500)
    assert exact.told[0][0].tolist() == drawn.told[0][0].tolist()
    assert torch.allclose(exact.told[0][1], drawn.told[0][1])
    assert any(target in row for target, row in zip((1, 2, 3), exact.told[0][0].tolist(), strict=True))


def test_draws_hardly_move_a_student_that_equals_its_teacher():
    """The head counts for itself: if it had to be drawn, nothing would keep a student from lifting it."""
    draw = torch.Generator().manual_seed(1)
    hidden, table = (torch.randn(rows, 6, generator=draw, dtype=torch.float64) for rows in (8, 201))
    lesson, losses, moved = _taught(hidden, table, 5, k=20, samples=8), [], []
    for seed in range(40):
        state = hidden.clone().requires_grad_()
        torch.manual_seed(seed)
        found = sampled_loss(state, table, lesson, 20)
        found.total.backward()
        losses.append(found.total.item())
        moved.append(state.grad)
    assert np.mean(losses) == pytest.approx(0.0, abs=0.1)
    assert torch.stack(moved).mean(0).norm() < 0.1


def test_draws_that_miss_a_small_tail_leave_everything_finite():
    draw = torch.Generator().manual_seed(1)
    hidden, table = (torch.randn(rows, 6, generator=draw) * 1.5 for rows in (8, 25))
    lesson = _taught(hidden, table, 2, k=20, samples=2)
    for seed in range(20):
        state, rows = hidden.clone().requires_grad_(), table.clone().requires_grad_()
        torch.manual_seed(seed)
        found = sampled_loss(state, rows, lesson, 3)
        found.total.backward()
        assert abs(found.total.item()) < 100.0
        assert max(state.grad.abs().max(), rows.grad.abs().max()) < 100.0


def test_draws_take_a_table_of_half_precision_and_are_exact_in_a_context_of_it():
    draw = torch.Generator().manual_seed(4)
    hidden, table = torch.randn(16, 8, generator=draw), torch.randn(40, 8, generator=draw).bfloat16()
    lesson, losses = HardObjective().lesson(_batch(16, 39)), []
    for kept, mixed in [(table, False), (table.float(), False), (table.float(), True)]:
        rows = kept.clone().requires_grad_()
        torch.manual_seed(0)
        with torch.autocast("cpu", dtype=torch.bfloat16, enabled=mixed):
            found = sampled_loss(hidden, rows, lesson, 30)
        found.total.backward()
        assert rows.grad.isfinite().all()
        losses.append(found.total.item())
    assert losses == [losses[0]] * 3
