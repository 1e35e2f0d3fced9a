"""Workspaces with a real registry and ledger, and what a night writes into them."""

from __future__ import annotations

import json
import subprocess
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import pytest
import yaml

from stillhouse.data.files import sha256_tree, write_json
from stillhouse.lineage import statement
from stillhouse.lineage.entry import Entry
from stillhouse.lineage.ledger import about, counting, following
from stillhouse.tracking import ledger_store, registry
from stillhouse.tracking.runs import open_night_run
from tasks import versions
from tasks.champion import ledger_entries, repair
from tasks.night import Night

ROOT = Path(__file__).parents[3]


@pytest.fixture
def root(workspace: Path) -> Path:
    """A git repository with a registry and the settings as shipped."""
    subprocess.run(["git", "init", "-q"], cwd=workspace, check=True)
    (workspace / "params.yaml").write_bytes((ROOT / "params.yaml").read_bytes())
    return workspace


@pytest.fixture
def judged(root: Path, registration: dict[str, Any]) -> Callable[..., int]:
    """Give a function that registers a student of a night and writes what the gate said: ``judged("promoted")``."""
    package = registration["package"]

    def one(kind: str, *, replaces: int | None = None, time: str = "2026-03-12T03:00:00+00:00") -> int:
        night = f"2026-03-{12 + len(about(ledger_entries(root)))}"
        card = json.loads((package / "package.json").read_text()) | {"night": night}
        (package / "package.json").write_text(json.dumps(card))
        digest = sha256_tree(package)
        record = statement.canonical(statement.build(statement.subjects(package), {"params": {"seed": 1}}))
        given = registration | {"digest": digest, "statement": record, "night": night}
        given |= {"verdict": "refused" if kind == "refused" else "passed"}
        version = registry.register_student(root, **given, run_id=open_night_run(root, night))
        entry = Entry(
            kind=kind,  # type: ignore[arg-type]
            key=f"gate:{night}:{version}",
            night=night,
            version=version,
            name="gru",
            package=digest,
            statement=statement.digest(record),
            verdict="a" * 64,
            replaces=replaces,
            reason="what the gate said",
            actor="gate",
            time=time,
        )
        ledger_store.append(root, partial(following, entry), counting)
        repair(root)
        return version

    return one


@pytest.fixture
def taught(root: Path) -> Callable[..., Night]:
    """Give a function that writes what a night leaves behind whose teacher has passed: ``taught("2026-03-02", b"w")``.

    The second argument are its weights. The night is opened by a tag, and with ``close=True`` closed by one.
    """

    def one(
        day: str,
        weights: bytes,
        *,
        start: str = "cold",
        previous: str | None = None,
        revises: str | None = None,
        before: bytes | None = None,
        close: bool = True,
    ) -> Night:
        night = Night(
            day, f"{day[:10]}T00:00:00+00:00", {"kind": "shop"}, "f", start == "cold", previous, revises, None
        )
        checkpoint = root / "models" / "teacher"
        checkpoint.mkdir(parents=True, exist_ok=True)
        (checkpoint / "model.safetensors").write_bytes(weights)
        write_json(checkpoint / "model.json", {"format": 1, "warm": start == "warm"})
        for folder in ("metrics", "reports", "runs"):
            (root / folder).mkdir(exist_ok=True)
        figures = {"ndcg_at_10": 0.3, "popularity_ndcg_at_10": 0.1, "bytes": 9}
        figures |= {"leave_one_out": {"ndcg_at_10": 0.25}, "time_window": {"ndcg_at_10": 0.125}}
        write_json(root / "metrics" / "check_teacher.json", figures)
        write_json(root / "metrics" / "train_teacher.json", {"start": start})
        write_json(root / "reports" / "verdict.json", {"accepted_rows": 9, "quarantined_rows": 1, "passed": True})
        write_json(root / "runs" / "train_teacher.json", {"run_id": "r1"})
        write_json(root / "runs" / "export_soft_targets.json", {"run_id": "r2"})
        (root / "dvc.lock").write_text(yaml.safe_dump({"schema": "2.0", "stages": _stages(weights, before)}))
        (root / "night.yaml").write_text(yaml.safe_dump(night.document()))
        for state in (versions.OPEN, versions.CLOSED)[: 1 + close]:
            versions.tag_night(root, day, state, "m", ["night.yaml", "dvc.lock"])
        return night

    return one


def md5_of(weights: bytes) -> str:
    """What stands for DVC's name of a checkpoint with those weights."""
    return f"{weights.hex()}.dir"


def _stages(weights: bytes, before: bytes | None) -> dict[str, Any]:
    def stage(name: str, inputs: dict[str, tuple[str, str]], outputs: dict[str, tuple[str, str]]) -> dict[str, Any]:
        words = [f"{argument}={path}" for argument, (path, _) in (inputs | outputs).items()]
        files = [[{"path": path, "md5": md5, "size": 1} for path, md5 in side.values()] for side in (inputs, outputs)]
        return {"cmd": " ".join(["stillhouse stage", name, *words]), "deps": files[0], "outs": files[1]}

    snapshot, accepted = ("data/snapshot", "1.dir"), ("data/accepted", "2.dir")
    sequences, teacher = ("data/sequences", "3.dir"), ("models/teacher", md5_of(weights))
    previous = ("previous/teacher", "none.dir" if before is None else md5_of(before))
    verdict = ("reports/verdict.json", "4")
    return {
        "ingest": stage("ingest", {}, {"snapshot": snapshot}),
        "validate": stage("validate", {"snapshot": snapshot}, {"accepted": accepted, "verdict": verdict}),
        "prepare": stage("prepare", {"accepted": accepted}, {"sequences": sequences}),
        "train_teacher": stage(
            "train_teacher", {"sequences": sequences, "previous_teacher": previous}, {"teacher": teacher}
        ),
        "check_teacher": stage("check_teacher", {"teacher": teacher}, {"checked": ("reports/teacher.json", "5")}),
        "export_soft_targets": stage("export_soft_targets", {"teacher": teacher}, {"soft_targets": ("data/s", "6")}),
    }
