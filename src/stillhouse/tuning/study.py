"""What a search remembers: an Optuna study in a file, which a kill harms nowhere.

Every trial is drawn by a sampler of its own, seeded by how many trials have
finished. A search that was killed and taken up again therefore draws what an
unbroken one would have drawn.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import numpy as np
import optuna
from optuna.storages import JournalStorage
from optuna.storages.journal import JournalFileBackend, JournalFileSymlinkLock
from optuna.trial import FrozenTrial, TrialState

from stillhouse.errors import TrainingError, one_line
from stillhouse.params.tune import TuneParams
from stillhouse.tuning.space import Dimension

__all__ = ["Draft", "Pruned", "Study", "Trial", "open_study"]

#: What `Draft.report` raises where a trial is not worth finishing.
Pruned = optuna.TrialPruned

_FILE, _NAME = "study.jsonl", "search"
_STANDS, _SECONDS, _EPOCHS, _END = "stands", "seconds", "epochs", "end"
_FINISHED = (TrialState.COMPLETE, TrialState.PRUNED)

End = Literal["complete", "pruned", "diverged"]


@dataclass(frozen=True)
class Trial:
    """A finished trial."""

    number: int
    """Counted from 0 over all that were begun; one that was killed is begun anew under another number."""
    values: Mapping[str, float]
    """Setting → what it was run with."""
    ndcg_at_10: float | None
    """The best of its epochs on the validation split; ``None``: it diverged before the first had ended."""
    epochs: int
    """Epochs that were trained."""
    seconds: float
    """What the run that finished it took; the part before a kill is not counted."""
    end: End
    stands: bool
    """Whether it ran with the settings that stand today."""


class Draft:
    """A trial that is under way."""

    def __init__(self, trial: optuna.Trial, values: Mapping[str, float]) -> None:
        self._trial = trial
        self.number = trial.number
        self.values = values
        """Setting → what it is to be run with."""
        self.stands: bool = trial.user_attrs.get(_STANDS, False)
        """Whether these are the settings that stand today; such a trial is never pruned."""
        self.epochs = 0
        """Epochs reported."""

    def report(self, ndcg_at_10: float) -> None:
        """Take note of the next epoch's figure.

        Args:
            ndcg_at_10: on the validation split.

        Raises:
            Pruned: its best so far is below the median of the complete trials at that epoch.
        """
        self._trial.report(ndcg_at_10, self.epochs)
        self.epochs += 1
        if not self.stands and self._trial.should_prune():
            raise Pruned

    def finish(self, study: optuna.Study, ndcg_at_10: float | None, seconds: float, end: End) -> None:
        """Write down how it ended."""
        for name, value in ((_SECONDS, seconds), (_EPOCHS, self.epochs), (_END, end)):
            self._trial.set_user_attr(name, value)
        if end == "complete":
            study.tell(self._trial, ndcg_at_10)
        else:
            study.tell(self._trial, state=TrialState.PRUNED)


class Study:
    """The trials of one search; the first runs with what stands, so that the best is never worse."""

    def __init__(self, study: optuna.Study, space: Sequence[Dimension], tune: TuneParams, seed: int) -> None:
        self._study, self._space, self._tune, self._seed = study, space, tune, seed
        self._take_up()

    def _take_up(self) -> None:
        """Queue once more what a killed search left unfinished, and what stands where it was never run."""
        stands = {dimension.name: dimension.stands for dimension in self._space}
        for left in self._study.get_trials(states=(TrialState.RUNNING,)):
            self._study.tell(left.number, state=TrialState.FAIL)
            if left.params and _STANDS not in left.user_attrs:
                self._study.enqueue_trial(left.params, user_attrs=left.user_attrs)
        queued = self._study.get_trials(states=(TrialState.WAITING, *_FINISHED))
        if not any(_STANDS in trial.user_attrs for trial in queued):
            self._study.enqueue_trial(stands, user_attrs={_STANDS: True})

    def draw(self) -> Draft:
        """Begin the next trial."""
        done = len(self._study.get_trials(deepcopy=False, states=_FINISHED))
        seed = int(np.random.SeedSequence((self._seed, done)).generate_state(1)[0])
        self._study.sampler = optuna.samplers.TPESampler(seed=seed, n_startup_trials=self._tune.startup_trials)
        trial = self._study.ask({dimension.name: dimension.distribution for dimension in self._space})
        return Draft(trial, self._used(trial.params))

    def finish(self, draft: Draft, ndcg_at_10: float | None, seconds: float, end: End) -> Trial:
        """Write down how ``draft`` ended and return it finished.

        Args:
            draft: from `draw`.
            ndcg_at_10: the figure of one that is complete; of another the best that it reported counts.
            seconds: what it took.
            end: ``diverged``: its loss was not finite any more.
        """
        draft.finish(self._study, ndcg_at_10, seconds, end)
        return self._trial(self._study.trials[draft.number])

    @property
    def trials(self) -> list[Trial]:
        """The finished trials, in the order in which they were begun."""
        return [self._trial(trial) for trial in self._study.get_trials(deepcopy=False, states=_FINISHED)]

    def _trial(self, trial: FrozenTrial) -> Trial:
        reported = trial.intermediate_values.values()
        best = trial.value if trial.state is TrialState.COMPLETE else max(reported, default=None)
        facts = trial.user_attrs
        return Trial(
            number=trial.number,
            values=self._used(trial.params),
            ndcg_at_10=best,
            epochs=facts[_EPOCHS],
            seconds=facts[_SECONDS],
            end=facts[_END],
            stands=facts.get(_STANDS, False),
        )

    def _used(self, drawn: Mapping[str, float]) -> dict[str, float]:
        return {dimension.name: dimension.used(drawn[dimension.name]) for dimension in self._space}


def open_study(folder: Path, space: Sequence[Dimension], tune: TuneParams, seed: int) -> Study:
    """Open the study in ``folder``, made where there is none. Its caller alone uses it meanwhile.

    Args:
        folder: holds the study of exactly this search.
        space: what is searched.
        tune: how trials are drawn and pruned.
        seed: of the draws, ≥ 0.

    Raises:
        TrainingError: the study is damaged.
    """
    optuna.logging.set_verbosity(optuna.logging.WARNING)
    file = folder / _FILE
    _drop_half_a_line(file)
    pruner = optuna.pruners.MedianPruner(n_startup_trials=tune.startup_trials, n_warmup_steps=tune.warmup_epochs)
    try:
        storage = JournalStorage(JournalFileBackend(str(file), lock_obj=_Held(str(file))))
        study = optuna.create_study(
            storage=storage, pruner=pruner, study_name=_NAME, direction="maximize", load_if_exists=True
        )
    except (ValueError, LookupError, TypeError, AttributeError) as error:  # what Optuna's reader stumbles over
        text = f"a search's study must be whole, found it damaged: {error} ({file}): remove {folder} to search anew"
        raise TrainingError(one_line(text)) from None
    return Study(study, space, tune, seed)


class _Held(JournalFileSymlinkLock):
    """The search holds the study already; Optuna's own lock would outlive a kill by half a minute."""

    def acquire(self) -> bool:
        return True

    def release(self) -> None:
        pass


def _drop_half_a_line(file: Path) -> None:
    """Cut off what a kill or a full disk left half-written at the end: Optuna would append to it, and read neither."""
    if file.exists():
        with file.open("rb+") as journal:
            journal.truncate(journal.read().rfind(b"\n") + 1)
