"""The steps of a night as Prefect tasks, so that each is seen, timed and told apart in its picture."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from prefect import task
from prefect.cache_policies import NO_CACHE

from stillhouse.lineage.projection import State
from stillhouse.tracking import runs
from tasks import anchors, gate, graph, night, registry, summary, teachers

__all__ = [
    "OpenNight",
    "close_night",
    "judge_students",
    "open_night",
    "promote_chosen",
    "register_students",
    "register_teacher",
    "summarise",
    "tracked",
]


@dataclass(frozen=True)
class OpenNight:
    """A night at work: where, which, and its tracking run."""

    root: Path
    night: night.Night
    run_id: str


@task(cache_policy=NO_CACHE, persist_result=False)
def open_night(root: Path, plan: night.Plan) -> OpenNight:
    """Open the night, or go on with it, and find or make its tracking run."""
    opened = night.open_night(root, plan)
    tags = {"as_of": opened.as_of, "fingerprint": opened.fingerprint, "source": str(opened.source["kind"])}
    return OpenNight(root, opened, runs.open_night_run(root, opened.id, tags))


@contextmanager
def tracked(one: OpenNight) -> Iterator[None]:
    """Close the night's tracking run as FAILED where the block raises."""
    try:
        yield
    except BaseException as error:
        runs.finish_night_run(one.root, one.run_id, "FAILED", tags={"error": f"{type(error).__name__}: {error}"})
        raise


@task(cache_policy=NO_CACHE, persist_result=False)
def judge_students(one: OpenNight) -> gate.Decision:
    """Put every student before the gate; the decision, which the ledger names by its hash, is kept with the run."""
    decision = gate.decide(one.root, one.night, graph.stage_runs(one.root))
    runs.log_dict(one.root, one.run_id, decision.as_dict(), decision.file)
    return decision


@task(cache_policy=NO_CACHE, persist_result=False)
def register_teacher(one: OpenNight) -> int:
    """Register the teacher, which the students' versions name; it is found again where it is registered already."""
    return teachers.register(one.root, one.night, one.run_id)


@task(cache_policy=NO_CACHE, persist_result=False)
def register_students(one: OpenNight, decision: gate.Decision, teacher: int) -> dict[str, int]:
    """Register every student; each is found again where it is registered already."""
    return registry.register(one.root, one.night, decision, one.run_id, teacher)


@task(cache_policy=NO_CACHE, persist_result=False)
def promote_chosen(one: OpenNight, decision: gate.Decision, versions: dict[str, int]) -> State:
    """Write the decision into the ledger; the aliases follow."""
    return registry.promote(one.root, one.night, decision, versions)


@task(cache_policy=NO_CACHE, persist_result=False)
def close_night(one: OpenNight) -> str:
    """Close the night: push, tag, and let resume state go."""
    return night.close_night(one.root, one.night, anchors.anchor(one.root))


def summarise(
    one: OpenNight,
    stages: Sequence[summary.StageReport],
    decision: gate.Decision,
    versions: dict[str, int],
    standing: State,
) -> summary.Summary:
    """Finish the night's tracking run, name the runs of reused stages on it, and gather the summary."""
    told = summary.summarise(one.root, one.night, stages, decision, versions, standing)
    made = graph.stage_runs(one.root)
    runs.tag_reused(one.root, one.run_id, {stage.name: made[stage.name] for stage in stages if not stage.ran})
    figures = {row.label.partition(" ")[0]: {"ndcg_at_10": row.ndcg_at_10, "bytes": row.bytes} for row in told.models}
    tags = {
        "chosen": decision.chosen or "none",
        "champion": str(standing.champion),
        "awaiting": str(standing.awaiting),
    }
    runs.finish_night_run(one.root, one.run_id, "FINISHED", figures, tags)
    return told
