"""An objective on a whole table of scores, as its formula has it: what tests compare with."""

from stillhouse.distill.catalogue import look


def on_scores(objective, scores, batch, hidden=None):
    """Return the `LossParts` of ``scores`` [N, n_items + 1], with gradients back to them."""
    lesson = objective.lesson(batch)
    return lesson.loss(look(scores, lesson.wanted, hidden), 0, len(batch))
