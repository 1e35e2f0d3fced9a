"""A teacher that is a table of scores: what methods of distillation are tested against."""

from dataclasses import dataclass, replace
from types import SimpleNamespace

import numpy as np
import torch

from stillhouse.distill.catalogue import look
from stillhouse.distill.method import Said
from stillhouse.distill.protocol import PositionBatch, Wanted
from stillhouse.distill.soft_targets import TargetBatch
from stillhouse.distill.teacher_rows import TeacherRows
from stillhouse.errors import StoreError


@dataclass(frozen=True)
class Rows:
    """N positions, what each has seen, and a teacher's scores of all items."""

    scores: np.ndarray
    """float64 [N, n_items + 1]; column 0 means nothing."""
    seen: list[np.ndarray]
    k: int = 4
    samples: int = 3

    @classmethod
    def drawn(cls, positions=6, items=14, seed=5, **cut):
        """Return random rows; the last but one has seen all but two items, the last one all of them."""
        rng = np.random.default_rng(seed)
        seen = [rng.permutation(np.arange(1, items + 1))[: rng.integers(1, 5)] for _ in range(positions - 2)]
        seen += [rng.permutation(np.arange(1, items + 1))[: items - 2], np.arange(1, items + 1)]
        return cls(rng.normal(0.0, 2.0, (positions, items + 1)), seen, **cut)

    def unseen(self, row):
        gone = set(self.seen[row].tolist())
        return np.array([item for item in range(1, self.scores.shape[1]) if item not in gone], np.int64)

    def head(self, row):
        """The teacher's best unseen items of a row, best first."""
        left = self.unseen(row)
        return left[np.argsort(-self.scores[row, left], kind="stable")][: self.k]

    def tail(self, row):
        return np.setdiff1d(self.unseen(row), self.head(row))

    def pairs(self):
        rows = np.repeat(np.arange(len(self.seen)), [len(seen) for seen in self.seen])
        return torch.from_numpy(rows), torch.from_numpy(np.concatenate(self.seen).astype(np.int64))

    def batch(self, temperature, seed=0):
        """Cut the scores as the store does, by a plain loop; the draws are uniform over the tail."""
        rng = np.random.default_rng(seed)
        rows = []
        for row in range(len(self.scores)):
            head, tail = self.head(row), self.tail(row)
            best = self.scores[row, head].max(initial=-np.inf)
            peak = best if np.isfinite(best) else 0.0
            pad = self.k - len(head)
            drawn = rng.choice(tail, self.samples) if len(tail) else np.zeros(self.samples, np.int64)
            raw = self.scores[row] - peak
            rows.append(
                (
                    np.pad(head, (0, pad)),
                    np.pad(raw[head], (0, pad), constant_values=-np.inf),
                    peak,
                    np.log(np.exp(raw[tail] / temperature).sum()) if len(tail) else -np.inf,
                    drawn,
                    raw[drawn] if len(tail) else np.full(self.samples, -np.inf),
                    np.full(self.samples, -np.log(len(tail)) if len(tail) else 0.0),
                )
            )
        return TargetBatch(temperature, *(np.stack(column) for column in zip(*rows, strict=True)))

    def teacher(self, temperature=1.0, hidden=None, seed=0):
        """What the teacher says, as float64 tensors."""
        batch = replace(self.batch(temperature, seed), hidden=hidden)
        return TeacherRows.of(batch, torch.device("cpu"), torch.float64, self.scores.shape[1] - 1, self)

    @property
    def counts(self):
        """How many items each position has seen."""
        return torch.tensor([len(seen) for seen in self.seen])

    def positions(self):
        """The positions as a batch: what came next is the teacher's third choice, or item 1."""
        heads = [self.head(row) for row in range(len(self.scores))]
        targets = torch.tensor([int(head[2]) if len(head) > 2 else 1 for head in heads])
        steps = torch.arange(len(heads))
        return PositionBatch(targets, torch.ones(len(heads), dtype=torch.float64), torch.zeros_like(steps), steps)

    def said(self, method, scores, temperature=1.0, hidden=None, theirs=None, seed=0):
        """What ``method`` sees where a student gives ``scores`` [N, n_items + 1], with gradients back to them."""
        teacher, batch = self.teacher(temperature, theirs), self.positions()
        wanted = Wanted(
            items=torch.cat([batch.targets.unsqueeze(1), teacher.items, teacher.tail_items], dim=1),
            head=teacher.items,
            head_at=1,
            seen=self.pairs(),
            temperatures=(temperature,),
            top=method.top,
        )
        answer = look(scores, wanted, hidden)
        torch.manual_seed(seed)
        return Said(
            batch=batch,
            teacher=teacher,
            own=method.prepare(batch, teacher),
            target=answer.scores[:, 0],
            head=answer.scores[:, 1 : self.k + 1],
            drawn=answer.scores[:, self.k + 1 :],
            hidden=answer.hidden,
            log_candidates=answer.log_total,
            log_unseen=answer.log_unseen[temperature],
            log_tail=answer.log_tail[temperature],
            top_items=answer.top_items,
            top_scores=answer.top_scores,
        )


class Remembered:
    """A soft-target store and its histories in memory: user u has taken all that `Rows` says its position has seen.

    Position (u, t) is row u, whatever t is; those of the users that it ``lacks`` are not held.
    """

    def __init__(self, rows, temperatures=(1.0, 2.0), hidden=None, lacks=()):
        self._rows, self._hidden, self._lacks = rows, hidden, lacks
        self.items = np.concatenate(rows.seen).astype(np.int32)
        self.offsets = np.cumsum([0, *(len(seen) for seen in rows.seen)])
        self.header = SimpleNamespace(
            temperatures=temperatures,
            temperature_column=self._column,
            repeat_items=False,
            n_items=rows.scores.shape[1] - 1,
            k=rows.k,
            hidden_width=0 if hidden is None else hidden.shape[1],
        )

    def _column(self, temperature):
        if temperature not in self.header.temperatures:
            raise StoreError(f"temperature must be one of the soft-target store's, got {temperature:g}")
        return self.header.temperatures.index(temperature)

    def position_ids(self, users, steps):
        return np.where(np.isin(users, self._lacks), -1, users)

    def batch(self, ids, temperature, *, hidden=False, draws=True):
        found = self._rows.batch(temperature)
        if not draws:
            none = {name: getattr(found, name)[:, :0] for name in ("tail_items", "tail_scores", "tail_logq")}
            found = replace(found, **none)
        arrays = {name: value[ids] for name, value in vars(found).items() if isinstance(value, np.ndarray)}
        if hidden and self._hidden is not None:
            arrays["hidden"] = self._hidden[ids]
        return TargetBatch(temperature, **arrays)

    def positions(self, users=None, progress=0.0):
        """Positions of ``users`` (all rows), each having seen all that its row says."""
        users = torch.arange(len(self._rows.scores)) if users is None else users
        targets, counts = self._rows.positions().targets[users], self._rows.counts[users]
        return PositionBatch(targets, torch.ones(len(users), dtype=torch.float64), users, counts - 1, progress)
