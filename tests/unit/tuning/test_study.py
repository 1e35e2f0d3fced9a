"""The study on a made objective: no training."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from stillhouse.errors import TrainingError
from stillhouse.params.tune import TuneParams
from stillhouse.tuning.importance import draw, importances
from stillhouse.tuning.space import Dimension, search_space
from stillhouse.tuning.study import Pruned, Trial, open_study

TUNE = TuneParams(startup_trials=3, warmup_epochs=1)
EPOCHS = 4


def space(tune: TuneParams = TUNE, **stands: Any) -> list[Dimension]:
    return search_space(tune, {"learning_rate": 0.01}, {"alpha": 0.3, "temperature": 1.0, **stands}, (1.0, 2.0))


def figure(values: dict[str, float], epoch: int) -> float:
    """Rise with the epochs; best at alpha 0.8, whatever the rest."""
    return 0.3 - 0.2 * abs(values["alpha"] - 0.8) + 0.01 * epoch


class Killed(BaseException):
    """What SIGKILL would do, but for the test's own process."""


def run(folder: Path, trials: int, *, killed_at: tuple[int, int] | None = None, seed: int = 7) -> list[Trial]:
    """Search until there are ``trials``; ``killed_at``: (trial, epoch) at which it is cut off."""
    folder.mkdir(exist_ok=True)
    study = open_study(folder, space(), TUNE, seed)
    while len(study.trials) < trials:
        draft = study.draw()
        try:
            for epoch in range(EPOCHS):
                if (draft.number, epoch) == killed_at:
                    raise Killed
                draft.report(figure(dict(draft.values), epoch))
        except Pruned:
            study.finish(draft, None, 0.5, "pruned")
        else:
            study.finish(draft, figure(dict(draft.values), EPOCHS - 1), 0.5, "complete")
    return study.trials


def facts(trials: list[Trial]) -> list[tuple[Any, ...]]:
    return [(one.values, one.ndcg_at_10, one.end, one.epochs, one.stands) for one in trials]


def test_the_first_trial_is_what_stands_so_that_the_best_is_never_worse(tmp_path: Path) -> None:
    trials = run(tmp_path / "a", 10)
    assert (trials[0].stands, trials[0].values) == (True, {"alpha": 0.3, "temperature": 1.0, "learning_rate": 0.01})
    assert [one.stands for one in trials[1:]] == [False] * 9
    assert max(one.ndcg_at_10 or 0.0 for one in trials) > (trials[0].ndcg_at_10 or 0.0)


def test_poor_trials_are_pruned_once_there_is_something_to_compare_them_with(tmp_path: Path) -> None:
    trials = run(tmp_path / "a", 12)
    assert {one.end for one in trials[: TUNE.startup_trials]} == {"complete"}
    pruned = [one for one in trials if one.end == "pruned"]
    assert pruned
    assert {one.epochs for one in pruned} == {TUNE.warmup_epochs + 1}
    assert all(one.ndcg_at_10 == pytest.approx(figure(dict(one.values), 1)) for one in pruned)


@pytest.mark.parametrize("killed_at", [(0, 0), (0, 2), (4, 1), (6, 0)])
def test_a_search_that_was_killed_ends_as_an_unbroken_one(tmp_path: Path, killed_at: tuple[int, int]) -> None:
    unbroken = run(tmp_path / "a", 8)
    with pytest.raises(Killed):
        run(tmp_path / "b", 8, killed_at=killed_at)
    before = facts(run(tmp_path / "b", 0))
    after = run(tmp_path / "b", 8)
    assert facts(after) == facts(unbroken)
    assert facts(after)[: len(before)] == before, "what had finished is kept"
    assert [one.number for one in after] == [n + (n >= killed_at[0]) for n in range(8)]


def test_another_seed_draws_other_trials_after_the_first(tmp_path: Path) -> None:
    one, other = run(tmp_path / "a", 3), run(tmp_path / "b", 3, seed=8)
    assert facts(one)[0] == facts(other)[0]
    assert facts(one)[1:] != facts(other)[1:]


def test_half_a_line_at_the_end_of_the_journal_is_dropped(tmp_path: Path) -> None:
    before = facts(run(tmp_path / "a", 3))
    journal = tmp_path / "a" / "study.jsonl"
    with journal.open("a") as file:
        file.write('{"op_code": 6, "tri')
    assert facts(run(tmp_path / "a", 4))[:3] == before
    assert facts(run(tmp_path / "a", 4))[:3] == before, "and what was written since can be read"


def test_a_diverged_trial_is_finished_and_has_no_figure(tmp_path: Path) -> None:
    study = open_study(tmp_path, space(), TUNE, 7)
    study.finish(study.draw(), 0.2, 1.0, "complete")
    ended = study.finish(study.draw(), None, 1.0, "diverged")
    assert (ended.end, ended.ndcg_at_10, ended.epochs) == ("diverged", None, 0)
    assert len(open_study(tmp_path, space(), TUNE, 7).trials) == 2


def test_the_setting_that_matters_is_the_most_important(tmp_path: Path) -> None:
    shares = importances(run(tmp_path / "a", 16), space())
    assert next(iter(shares)) == "alpha"
    assert set(shares) == {"alpha", "temperature", "learning_rate"}
    assert sum(shares.values()) == pytest.approx(1.0)


def test_there_is_no_importance_of_one_trial_and_an_equal_one_of_trials_alike(tmp_path: Path) -> None:
    trials = run(tmp_path / "a", 2)
    assert importances(trials[:1], space()) == {}
    assert importances([trials[0], trials[0]], space()) == pytest.approx(dict.fromkeys(trials[0].values, 1 / 3))


def test_the_plot_is_a_png_of_the_same_bytes_each_time(tmp_path: Path) -> None:
    for name in ("one.png", "two.png"):
        draw({"alpha": 0.75, "temperature": 0.25}, "gru", tmp_path / name)
    assert (tmp_path / "one.png").read_bytes().startswith(b"\x89PNG")
    assert (tmp_path / "one.png").read_bytes() == (tmp_path / "two.png").read_bytes()


@pytest.mark.parametrize("damage", [b"no JSON\n", b"\xff\xfe\n", b'{"op_code": 4}\n', b"[]\n"])
def test_a_study_that_is_damaged_is_refused_in_one_line(tmp_path: Path, damage: bytes) -> None:
    run(tmp_path, 2)
    journal = tmp_path / "study.jsonl"
    first, *rest = journal.read_bytes().splitlines(keepends=True)
    journal.write_bytes(b"".join([first, damage, *rest]))
    with pytest.raises(TrainingError, match=r"a search's study must be whole, found it damaged.*to search anew"):
        run(tmp_path, 2)
