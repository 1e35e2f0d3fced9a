"""One night: open it, perform the graph, put the students before the gate, register, promote, close."""

from __future__ import annotations

from prefect import flow

from tasks.events import tell_of_decision, tell_of_quarantine, telling_why_stopped
from tasks.night import Plan
from tasks.plan import Request
from tasks.stages import perform_graph
from tasks.steps import (
    close_night,
    judge_students,
    open_night,
    promote_chosen,
    register_students,
    register_teacher,
    summarise,
    tracked,
)
from tasks.summary import Summary

__all__ = ["nightly"]


@flow(flow_run_name="night {plan.night.id}", validate_parameters=False, persist_result=False)
def nightly(request: Request, plan: Plan) -> Summary:
    """Perform one night.

    Args:
        request: what was asked for, and in which workspace.
        plan: what `tasks.plan.plan_night` made of it.

    Returns:
        Everything worth printing about the night.

    Raises:
        StillhouseError: the night was stopped; it harmed nothing, and the next run goes on from there.
    """
    night = open_night(request.workspace, plan)
    with tracked(night), telling_why_stopped(night.root, night.night.id):
        stages = perform_graph(night)
        decision = judge_students(night)
        teacher = register_teacher(night)
        versions = register_students(night, decision, teacher)
        standing = promote_chosen(night, decision, versions)
        summary = summarise(night, stages, decision, versions, standing)
        close_night(night)
        tell_of_quarantine(night.root, night.night.id)
        tell_of_decision(night.root, night.night.id, decision)
        return summary
