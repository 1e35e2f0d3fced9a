"""The stage evaluate: a planted package whose every rank is known."""

from __future__ import annotations

import math
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from stillhouse.data.files import read_json, sha256_tree, write_json
from stillhouse.errors import PackageError
from stillhouse.evaluate.ranks import read_ranks
from stillhouse.params.evaluate import EvaluateParams
from stillhouse.reporting import SilentReporter
from stillhouse.stages.evaluate import evaluate

# The planted package puts the item after the last one first: users 0 and 1 walk the circle, user 2 does not.
HISTORIES = [[1, 2, 3, 4], [4, 5, 6, 1, 2], [6, 3, 1, 5], [2]]


def params(**changes: Any) -> EvaluateParams:
    values: dict[str, Any] = {
        "ks": [1, 2, 10],
        "batch_size": 2,
        "threads": 1,
        "latency_threads": 1,
        "latency_requests": 12,
        "short_history": 3,
        "head_share": 0.5,
        "repeat_items": False,
    }
    return EvaluateParams(**{**values, **changes})


def evaluated(package: Path, vocabulary: Path, sequences: Path, folder: Path, name: str = "e", **changes: Any) -> Any:
    return evaluate(
        package=package,
        vocabulary=vocabulary,
        sequences=sequences,
        evaluation=folder / name,
        timings=folder / "timings" / f"{name}.json",
        params=params(**changes),
        reporter=SilentReporter(),
    )


@pytest.fixture
def run(make_sequences, make_package, tmp_path: Path) -> Callable[..., dict[str, Any]]:
    def stage(name: str = "e", *, window: int = 1, repeat_items: bool = False, table: Any = None, **changes: Any):
        vocabulary, sequences = make_sequences(
            HISTORIES, window=window, repeat_items=repeat_items, name=f"night-{name}"
        )
        package = make_package(vocabulary, table, repeat_items=repeat_items, name=name)
        (tmp_path / "timings").mkdir(exist_ok=True)
        found = evaluated(package, vocabulary, sequences, tmp_path, name, **{"repeat_items": repeat_items, **changes})
        return dict(found)

    return stage


def test_ranks_and_figures_of_both_protocols_are_those_planted(run, tmp_path: Path) -> None:
    found = run()
    ranks = read_ranks(tmp_path / "e")
    assert ranks is not None
    # leave-one-out: 1 2 → 3, 4 5 6 → 1, 6 3 → 1 (after 3 the circle says 4, 5, then 1; 6 is seen)
    assert ranks.rows["leave_one_out"].ranks.tolist() == [1, 1, 3]
    # window: 1 2 3 → 4, 4 5 6 1 → 2, 6 3 1 → 5 (2, 4, 5), and user 3's only item: popular, 1 before it
    assert ranks.rows["time_window"].users.tolist() == [0, 1, 2, 3]
    assert ranks.rows["time_window"].ranks[:3].tolist() == [1, 1, 3]
    assert found["leave_one_out"]["hr_at_1"] == pytest.approx(2 / 3)
    assert found["leave_one_out"]["ndcg_at_10"] == pytest.approx((1 + 1 + 0.5) / 3)
    assert found["leave_one_out"]["mrr"] == pytest.approx((1 + 1 + 1 / 3) / 3)
    assert (found["leave_one_out"]["users"], found["time_window"]["users"]) == (3, 4)
    assert all(math.isfinite(value) for value in found["leave_one_out"].values())


def test_an_empty_history_is_ranked_by_popularity_as_it_is_served(run, tmp_path: Path) -> None:
    run()
    ranks = read_ranks(tmp_path / "e")
    assert ranks is not None
    # Item 2 is in no training row: the other five stand before it or beside it.
    assert ranks.rows["time_window"].ranks[3] == 6


def test_size_cost_and_popularity_come_along(run) -> None:
    found = run()
    assert found["bytes"] > 0
    assert {"parameters", "parameters_without_embeddings", "flops"} <= set(found)
    assert found["popularity"]["leave_one_out"]["ndcg_at_10"] < found["leave_one_out"]["ndcg_at_10"]
    assert "coverage_at_10" in found["leave_one_out"]
    assert "popularity_bias_at_10" in found["leave_one_out"]


def test_without_a_window_its_figures_are_none(run, tmp_path: Path) -> None:
    assert run(window=0)["time_window"] is None
    ranks = read_ranks(tmp_path / "e")
    assert ranks is not None
    assert len(ranks.rows["time_window"].ranks) == 0
    assert "time_window" not in read_json(tmp_path / "e" / "slices.json")


def test_slices_stand_beside_the_ranks(run, tmp_path: Path) -> None:
    run()
    slices = read_json(tmp_path / "e" / "slices.json")
    assert slices["n_items"] == 6
    found = slices["leave_one_out"]
    assert (found["short"]["users"], found["long"]["users"], found["new_users"]["users"]) == (3, 0, 0)
    assert slices["time_window"]["long"]["users"] == 1


def test_the_evaluation_is_equal_bytes_from_run_to_run(run, tmp_path: Path) -> None:
    assert run("a") == run("b")
    assert sha256_tree(tmp_path / "a") == sha256_tree(tmp_path / "b")


def test_timings_state_their_threads_and_requests(run, tmp_path: Path) -> None:
    run(threads=2, latency_requests=15)
    found = read_json(tmp_path / "timings" / "e.json")
    assert (found["threads"], found["latency_threads"], found["requests"]) == (2, 1, 15)
    assert 0 < found["p50_ms"] <= found["p99_ms"]
    assert found["batch_per_s"] > 0


@pytest.mark.parametrize(
    ("changes", "path", "key"),
    [
        ({"ks": [3, 10]}, ("leave_one_out",), "hr_at_3"),
        ({"short_history": 1}, None, None),
        ({"head_share": 0.95}, None, None),
    ],
)
def test_every_setting_changes_something(run, tmp_path: Path, changes, path, key) -> None:
    usual, other = run("usual"), run("other", **changes)
    if key is not None:
        assert key in other[path[0]]
        assert key not in usual[path[0]]
    else:
        assert read_json(tmp_path / "usual" / "slices.json") != read_json(tmp_path / "other" / "slices.json")


def test_seen_items_are_candidates_where_people_take_items_again(run, tmp_path: Path) -> None:
    table = np.tile(np.arange(7.0), (7, 1))
    run("once", table=table)
    run("again", table=table, repeat_items=True)
    once, again = (read_ranks(tmp_path / name) for name in ("once", "again"))
    assert once is not None
    assert again is not None
    assert (once.rows["leave_one_out"].ranks <= again.rows["leave_one_out"].ranks).all()
    assert once.rows["leave_one_out"].ranks.tolist() == [4, 3, 4]
    assert again.rows["leave_one_out"].ranks.tolist() == [4, 6, 6]


def test_a_package_made_with_another_setting_is_refused(make_sequences, make_package, tmp_path: Path) -> None:
    vocabulary, sequences = make_sequences(HISTORIES)
    package = make_package(vocabulary, repeat_items=True)
    with pytest.raises(PackageError, match="must be made with repeat_items False, found True in planted"):
        evaluated(package, vocabulary, sequences, tmp_path)


def test_a_package_that_scores_nothing_has_only_misses(run, tmp_path: Path) -> None:
    found = run(table=np.full((7, 7), np.nan))
    assert found["leave_one_out"]["ndcg_at_10"] == 0.0
    assert found["leave_one_out"]["coverage_at_10"] == 0.0
    assert found["leave_one_out"]["popularity_bias_at_10"] is None
    write_json(tmp_path / "metrics.json", found)


@pytest.mark.parametrize("text", ["", "{", "[]", "{}", '{"repeat_items": false}'])
def test_a_package_that_does_not_say_what_it_is_is_refused(
    make_sequences, make_package, tmp_path: Path, text: str
) -> None:
    vocabulary, sequences = make_sequences(HISTORIES)
    package = make_package(vocabulary)
    (package / "package.json").write_text(text)
    with pytest.raises(PackageError, match=r"package\.json must .* run the stage package again"):
        evaluated(package, vocabulary, sequences, tmp_path)


@pytest.mark.parametrize("k", [0, -1])
def test_a_list_of_no_items_is_no_cut_off(k: int) -> None:
    with pytest.raises(ValueError, match="greater than or equal to 1"):
        params(ks=[10, k])
