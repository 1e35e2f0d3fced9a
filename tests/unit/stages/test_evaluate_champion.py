"""The stage evaluate_champion: an earlier night's package on tonight's targets."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from stillhouse.data.files import read_json, write_none
from stillhouse.evaluate.ranks import read_ranks
from stillhouse.params.evaluate import EvaluateParams
from stillhouse.reporting import SilentReporter
from stillhouse.stages.evaluate import evaluate
from stillhouse.stages.evaluate_champion import evaluate_champion

PARAMS = EvaluateParams(
    ks=(10,),
    batch_size=4,
    threads=1,
    latency_threads=1,
    latency_requests=10,
    short_history=3,
    head_share=0.5,
    repeat_items=False,
)
EARLIER = [[1, 2, 3], [1, 3]]
TONIGHT = [[1, 2, 3, 4], [3, 1, 2, 5], [5, 4, 1], [4, 5, 6]]


@pytest.fixture
def run(tmp_path: Path) -> Callable[..., dict[str, Any]]:
    def stage(champion: Path, vocabulary: Path, sequences: Path, reference: Path | None = None) -> dict[str, Any]:
        write_none(tmp_path / "none")
        return dict(
            evaluate_champion(
                champion=champion,
                reference=reference or tmp_path / "none",
                vocabulary=vocabulary,
                sequences=sequences,
                evaluation=tmp_path / "_champion",
                reference_evaluation=tmp_path / "_reference",
                timings=tmp_path / "_champion.json",
                params=PARAMS,
                reporter=SilentReporter(),
            )
        )

    return stage


def test_without_a_champion_there_is_nothing_and_it_is_said(run, make_sequences, tmp_path: Path) -> None:
    write_none(tmp_path / "champion")
    assert run(tmp_path / "champion", *make_sequences(TONIGHT)) == {"champion": None}
    assert read_ranks(tmp_path / "_champion") is None
    assert read_json(tmp_path / "_champion" / "slices.json")["none"] is True
    assert (tmp_path / "_champion.json").is_file()


def test_items_that_came_later_are_misses_and_never_stand_before(
    run, make_sequences, make_package, tmp_path: Path
) -> None:
    champion = make_package(make_sequences(EARLIER, name="earlier")[0])
    found = run(champion, *make_sequences(TONIGHT, name="tonight"))
    ranks = read_ranks(tmp_path / "_champion")
    assert ranks is not None
    assert ranks.n_items == 6
    rows = ranks.rows["leave_one_out"]
    # 1 2 3 → 4 and 3 1 2 → 5 and 4 5 → 6 are new to it; 5 4 → 1 has no known history: popular, 1 first.
    assert rows.items.tolist() == [4, 5, 1, 6]
    assert rows.ranks.tolist() == [7, 7, 1, 7]
    assert found["leave_one_out"]["hr_at_10"] == 0.25


def test_a_champion_of_tonights_vocabulary_is_evaluated_as_any_student(
    run, make_sequences, make_package, tmp_path: Path
) -> None:
    vocabulary, sequences = make_sequences(TONIGHT, window=1)
    package = make_package(vocabulary)
    as_champion = run(package, vocabulary, sequences)
    as_student = evaluate(
        package=package,
        vocabulary=vocabulary,
        sequences=sequences,
        evaluation=tmp_path / "student",
        timings=tmp_path / "student.json",
        params=PARAMS,
        reporter=SilentReporter(),
    )
    assert as_champion == as_student
    for name in ("ranks.parquet", "slices.json"):
        assert (tmp_path / "_champion" / name).read_bytes() == (tmp_path / "student" / name).read_bytes()


def test_the_reference_is_ranked_as_the_champion_would_be(run, make_sequences, make_package, tmp_path: Path) -> None:
    reference = make_package(make_sequences(EARLIER, name="earlier")[0])
    vocabulary, sequences = make_sequences(TONIGHT, name="tonight", window=1)
    champion = make_package(vocabulary, name="later")
    run(champion, vocabulary, sequences, reference)
    kept = (tmp_path / "_reference" / "ranks.parquet").read_bytes()
    assert kept != (tmp_path / "_champion" / "ranks.parquet").read_bytes()
    run(reference, vocabulary, sequences)
    assert kept == (tmp_path / "_champion" / "ranks.parquet").read_bytes()
    assert read_ranks(tmp_path / "_reference") is None


def test_unknown_events_leave_the_known_ones_in_the_history(run, make_sequences, make_package, tmp_path: Path) -> None:
    champion = make_package(make_sequences(EARLIER, name="earlier")[0])
    run(champion, *make_sequences([[1, 5, 2], [2, 6, 3]], n_items=6, name="tonight"))
    ranks = read_ranks(tmp_path / "_champion")
    assert ranks is not None
    assert ranks.rows["leave_one_out"].ranks.tolist() == [1, 1]


def test_a_changed_setting_of_repeat_items_does_not_stop_the_night(
    run, make_sequences, make_package, tmp_path: Path
) -> None:
    champion = make_package(make_sequences(EARLIER, name="earlier")[0], repeat_items=True)
    run(champion, *make_sequences(TONIGHT, name="tonight"))
    ranks = read_ranks(tmp_path / "_champion")
    assert ranks is not None
    assert np.isin(ranks.rows["leave_one_out"].ranks, [1, 7]).all()
