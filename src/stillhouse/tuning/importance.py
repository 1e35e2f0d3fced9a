"""Which settings made trials good: PED-ANOVA over the trials of a search, and its plot."""

from __future__ import annotations

import warnings
from collections.abc import Mapping, Sequence
from pathlib import Path

import optuna
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure

from stillhouse.data.files import replacing
from stillhouse.tuning.space import Dimension
from stillhouse.tuning.study import Trial

__all__ = ["draw", "importances"]

#: The best quarter is what is asked about: with a tenth, Optuna's default, 40 trials leave four to go by.
_QUANTILE = 0.25


def importances(trials: Sequence[Trial], space: Sequence[Dimension]) -> dict[str, float]:
    """Return each setting's share in what tells the best quarter of the trials from all, the largest first.

    A pruned trial counts with the best that it reached: what makes trials bad would not be seen without them.

    Source: S. Watanabe, A. Bansal, F. Hutter, "PED-ANOVA: Efficiently Quantifying Hyperparameter Importance in
    Arbitrary Subspaces", IJCAI 2023.

    Args:
        trials: finished ones; those without a figure are left out.
        space: what was searched.

    Returns:
        Name → share, which sum to 1; empty for fewer than two figures. Equal shares where nothing can be told.
    """
    known = [trial for trial in trials if trial.ndcg_at_10 is not None]
    if len(known) < 2:
        return {}
    study = optuna.create_study(direction="maximize")
    distributions = {dimension.name: dimension.distribution for dimension in space}
    for trial in known:
        study.add_trial(
            optuna.trial.create_trial(value=trial.ndcg_at_10, params=dict(trial.values), distributions=distributions)
        )
    evaluator = optuna.importance.PedAnovaImportanceEvaluator(target_quantile=_QUANTILE)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of trials too few or too alike: the shares are equal then
        found = optuna.importance.get_param_importances(
            study, evaluator=evaluator, params=[dimension.name for dimension in space]
        )
    return {name: float(share) for name, share in found.items()}


def draw(shares: Mapping[str, float], title: str, path: Path) -> None:
    """Write the bars of ``shares`` as a PNG to ``path``; equal shares give equal bytes."""
    figure = Figure(figsize=(7.0, 1.2 + 0.4 * len(shares)), layout="constrained")
    FigureCanvasAgg(figure)
    axes = figure.add_subplot()
    names = list(shares)[::-1]
    bars = axes.barh(names, [shares[name] for name in names], color="#4c72b0")
    axes.bar_label(bars, fmt="%.2f", padding=3)
    axes.set_xlim(0.0, 1.1 * max(shares.values()))
    axes.set_xlabel("importance (PED-ANOVA, shares of 1)")
    axes.set_title(title, fontsize=10)
    with replacing(path) as temporary:
        figure.savefig(temporary, format="png", dpi=120, metadata={"Software": None})
