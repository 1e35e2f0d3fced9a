"""Data frames that tasks hand to each other fill a flow's memory and its server: no task here hands on any."""

from dataclasses import fields
from typing import get_type_hints

from prefect import Task

from tasks import stages
from tasks.summary import StageReport


def test_what_a_stages_task_hands_on_is_a_few_words():
    found = [one for one in vars(stages).values() if isinstance(one, Task)]
    assert len(found) == 2, "beside the flow, and on a pool"
    for one in found:
        assert get_type_hints(one.fn)["return"] is StageReport
        assert one.persist_result is False
    hints = get_type_hints(StageReport)
    assert {hints[field.name] for field in fields(StageReport)} <= {str, bool, float}
