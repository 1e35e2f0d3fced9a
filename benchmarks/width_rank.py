"""What a width can hold: a teacher's quality when its scores are cut to a rank, before anything is trained.

Takes a teacher that ``quality.py`` trained (one item table, one query). Its states and their inputs stay as they are;
only the products that make scores are cut:

- *table*: to the r most important directions of the item table, which is where a student starts
  (`stillhouse.distill.start.truncated`);
- *scores*: to the r most important directions of the score matrix over the states of the targets' histories, each row
  less its mean (what ranks cannot see): no table of that rank is nearer to those scores.

Leave-one-out, full ranking, seen items filtered, test split; the share is of the teacher's own NDCG@10.

    .venv/bin/python benchmarks/width_rank.py
    .venv/bin/python benchmarks/width_rank.py --run teacher-turned.1 --ranks 8 16 32
"""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

import torch
from _peers.report import table, write
from quality_table import gains
from torch import Tensor

from stillhouse.data.sequences import Sequences
from stillhouse.models.checkpoint import load
from stillhouse.models.protocol import SequenceModel
from stillhouse.train.validation import ValidationSet

WORK = Path(__file__).with_name("work") / "quality"


def directions_of_table(rows: Tensor) -> Tensor:
    """Return the directions of an item table [n_items + 1, D] by importance, the columns of float32 [D, D]."""
    exact = rows.double()
    return torch.linalg.eigh(exact.T @ exact).eigenvectors.flip(1).float()


def whitening(states: Tensor) -> Tensor:
    """Return the symmetric square root of the states' second moments, float64 [D, D], for ``states`` [n, D]."""
    exact = states.double()
    values, vectors = torch.linalg.eigh(exact.T @ exact / len(exact))
    return (vectors * values.clamp_min(0.0).sqrt()) @ vectors.T


def cut_to_table(rows: Tensor, rank: int) -> Tensor:
    """Return what states are multiplied by, float32 [D, D], for the table's ``rank`` first directions."""
    kept = directions_of_table(rows)[:, :rank]
    return kept @ kept.T


def cut_to_scores(rows: Tensor, states: Tensor, rank: int) -> Tensor:
    """Return the same for the scores' ``rank`` first directions.

    With S the root of the states' moments and U the first left singular vectors of S (table - its mean)', the nearest
    scores of that rank are states @ S⁻¹ U U' S @ table'.
    """
    root = whitening(states)
    apart = rows[1:].double() - rows[1:].double().mean(dim=0)
    product = root @ apart.T
    kept = torch.linalg.eigh(product @ product.T).eigenvectors.flip(1)[:, :rank]
    return (torch.linalg.pinv(root) @ kept @ kept.T @ root).float()


@torch.no_grad()
def main() -> None:
    """Cut, rank, report."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--work", type=Path, default=WORK, help="where quality.py keeps its runs")
    parser.add_argument("--run", default="teacher-turned.1", help="a teacher's run and its seed")
    parser.add_argument("--ranks", type=int, nargs="+", default=[4, 8, 16, 24, 28, 32, 48])
    asked = parser.parse_args()
    folder = asked.work / "runs" / asked.run / "teacher"
    if not folder.exists():
        raise SystemExit(f"the teacher must be trained, found none in {folder}: quality.py --only trains it")
    model, _ = load(folder)
    if not isinstance(model, SequenceModel) or model.queries is not None:
        raise SystemExit("the teacher must have one item table and one query (--run)")
    held = ValidationSet(Sequences.open(asked.work / "data" / "sequences"), model.length, split="test")
    rows, own = model.items.weight.detach(), model.scores
    seen: list[Tensor] = []

    def watched(hidden: Tensor) -> Tensor:
        seen.append(hidden)
        return own(hidden)

    def quality(scores: object) -> float:
        model.scores = scores  # type: ignore[assignment, method-assign]
        return float(gains(held.ranks(model).numpy()).mean())

    whole = quality(watched)
    states = torch.cat(seen)
    found = []
    for rank in asked.ranks:
        cuts = {"table": cut_to_table(rows, rank), "scores": cut_to_scores(rows, states, rank)}
        found.append(
            {"rank": rank} | {name: quality(lambda hidden, cut=cut: own(hidden @ cut)) for name, cut in cuts.items()}
        )
    cells = [
        [str(one["rank"]), *(f"{one[name]:.4f}" for name in ("table", "scores"))]
        + [f"{one[name] / whole:.1%}" for name in ("table", "scores")]
        for one in found
    ]
    table(["rank", "table", "scores", "table, share", "scores, share"], cells)
    print(f"{asked.run}, uncut: {whole:.4f}")
    write("width_rank", sys.argv, run=asked.run, uncut=whole, ranks=found)


if __name__ == "__main__":
    main()
