"""Two versions side by side: both rank the same targets, those of the data that is prepared in the workspace."""

from __future__ import annotations

import hashlib
import shutil
import tempfile
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from stillhouse.data.files import read_json, sha256_tree, write_json
from stillhouse.data.sequences import Sequences
from stillhouse.data.vocabulary import Vocabulary
from stillhouse.errors import NightError
from stillhouse.evaluate.against import paired_users
from stillhouse.evaluate.paired import interval
from stillhouse.evaluate.ranks import PROTOCOLS, Protocol, Ranks, read_ranks
from stillhouse.evaluate.report import Catalogue, target_masks
from stillhouse.lineage import statement
from stillhouse.params.base import build, stage_values
from stillhouse.params.document import load_document
from stillhouse.params.evaluate import EvaluateParams
from stillhouse.params.gate import GateParams
from stillhouse.reporting import Reporter
from stillhouse.runner.stage import STATE
from stillhouse.stages.evaluate import SPLITS, measure
from stillhouse.tracking.registry import VersionInfo, read_statement, version_of
from tasks.champion import package_of
from tasks.serving import package_at_hand

__all__ = ["Comparison", "Difference", "Side", "compare"]

_DATA = ("data/vocabulary", "data/sequences")


@dataclass(frozen=True)
class Side:
    """One of the two versions."""

    info: VersionInfo
    metrics: Mapping[str, Any]
    """What the stage ``evaluate`` would return of it on the data at hand."""
    timings: Mapping[str, Any]
    params: Mapping[str, Any]
    """``params.yaml`` of its night, by dotted names."""


@dataclass(frozen=True)
class Difference:
    """NDCG@10 of both over the same users, and how far the second is from the first."""

    protocol: Protocol
    part: str
    """``all``, or the slice's name."""
    users: int
    first: float
    second: float
    low: float
    """Of the interval of second minus first."""
    high: float


@dataclass(frozen=True)
class Comparison:
    """What two versions differ in."""

    first: Side
    second: Side
    differences: Sequence[Difference]
    confidence: float
    settings: Mapping[str, tuple[Any, Any]]
    """Dotted name → (first's, second's), for settings of their nights that differ."""


def compare(root: Path, first: int, second: int, reporter: Reporter) -> Comparison:
    """Rank the targets of the prepared data with both versions and return what they differ in.

    Args:
        root: the workspace; ``data/`` holds a night's prepared data.
        first: a registered version.
        second: another one.
        reporter: shows progress.

    Raises:
        NightError: no data is prepared here.
        RegistryError: a version is not there, or its files are not what the ledger names.
    """
    for path in _DATA:
        if not (root / path).exists():
            raise NightError(
                f"two versions are compared on prepared data, found no {path}: run a night, or `dvc checkout`"
            )
    document, plain = load_document(root / "params.yaml")
    params = build(EvaluateParams, stage_values(EvaluateParams, plain, {}), "evaluate")
    sides, ranks = zip(*(_side(root, version, params, reporter) for version in (first, second)), strict=True)
    words, events = Vocabulary.load(root / _DATA[0]), Sequences.open(root / _DATA[1])
    catalogue = Catalogue(events, words.popularity, params.ks, params.short_history, params.head_share)
    settings = {
        name: (sides[0].params.get(name), sides[1].params.get(name))
        for name in sorted(sides[0].params.keys() | sides[1].params.keys())
        if sides[0].params.get(name) != sides[1].params.get(name)
    }
    differences = list(_differences(ranks[0], ranks[1], catalogue, document.gate))
    return Comparison(sides[0], sides[1], differences, document.gate.confidence, settings)


def _side(root: Path, version: int, params: EvaluateParams, reporter: Reporter) -> tuple[Side, Ranks]:
    info = version_of(root, version)
    digest = package_of(root, version)
    package = package_at_hand(root, version, digest)
    place = root / STATE / "compared" / f"{digest[:16]}-{_of_data(root, params)[:16]}"
    if not place.exists():
        _measured(root, package, place, params, reporter)
    record = statement.read(read_statement(root, version))
    ranks = read_ranks(place / "evaluation")
    assert ranks is not None  # noqa: S101  # only an evaluation of no model has none
    settings = dict(_flat(record["predicate"]["params"]))
    return Side(info, read_json(place / "metrics.json"), read_json(place / "timings.json"), settings), ranks


def _of_data(root: Path, params: EvaluateParams) -> str:
    """Return one digest of all but the package that an evaluation depends on."""
    parts = [sha256_tree(root / path) for path in _DATA] + [params.model_dump_json()]
    return hashlib.sha256("\n".join(parts).encode()).hexdigest()


def _measured(root: Path, package: Path, place: Path, params: EvaluateParams, reporter: Reporter) -> None:
    """Evaluate ``package`` into ``place``, which is there whole or not at all."""
    place.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=place.parent) as folder:
        fresh = Path(folder) / "one"
        fresh.mkdir()
        vocabulary, sequences = (root / path for path in _DATA)
        evaluation, timings = fresh / "evaluation", fresh / "timings.json"
        metrics = measure(package, vocabulary, sequences, evaluation, timings, params, reporter)
        write_json(fresh / "metrics.json", metrics)
        shutil.rmtree(place, ignore_errors=True)
        fresh.replace(place)


def _differences(first: Ranks, second: Ranks, catalogue: Catalogue, params: GateParams) -> Iterator[Difference]:
    for protocol in PROTOCOLS:
        masks: dict[str, NDArray[np.bool_] | None] = {"all": None, **target_masks(SPLITS[protocol], catalogue)}
        for name, mask in masks.items():
            theirs, ours = paired_users(first, second, protocol, mask)
            if len(ours):
                low, high = interval(ours - theirs, params.confidence, params.resamples, params.seed)
                yield Difference(protocol, name, len(ours), float(theirs.mean()), float(ours.mean()), low, high)


def _flat(values: Mapping[str, Any], prefix: str = "") -> Iterable[tuple[str, Any]]:
    for name, value in values.items():
        if isinstance(value, Mapping) and value:
            yield from _flat(value, f"{prefix}{name}.")
        else:
            yield f"{prefix}{name}", value
