"""Prepares MovieLens-1M (the frozen order) through our own stages: ingest, validate, prepare."""

from __future__ import annotations

import os
import shutil
from pathlib import Path
from typing import Any

from stillhouse.data.files import write_none
from stillhouse.data.sources import fingerprint
from stillhouse.params.base import build, read_yaml, stage_values
from stillhouse.params.ingest import IngestParams
from stillhouse.params.prepare import PrepareParams
from stillhouse.params.source import SourceSpec
from stillhouse.params.validate import ValidateParams
from stillhouse.reporting import SilentReporter
from stillhouse.stages.ingest import ingest
from stillhouse.stages.prepare import prepare
from stillhouse.stages.validate import validate

__all__ = ["default_file", "prepared"]

_ROOT = Path(__file__).parents[2]
_AS_OF = "2026-01-01T00:00:00+00:00"


def default_file() -> Path:
    """Return where the frozen file lies: in the folder that STILLHOUSE_SHARED names, or beside the checkout."""
    shared = Path(os.environ.get("STILLHOUSE_SHARED", _ROOT.parent / "shared"))
    return shared / "data" / "ml-1m" / "interactions.parquet"


def prepared(file: Path, folder: Path) -> Path:
    """Return the sequences of ``file``, leave-one-out, prepared in ``folder`` unless they lie there.

    Args:
        file: Parquet with user_id, item_id and the position within the user's history.
        folder: what the stages make.

    Raises:
        SystemExit: there is no such file.
    """
    if not (folder / "sequences").exists():
        if not file.is_file():
            raise SystemExit(f"the interactions must be there, found none at {file}: name them with --data")
        partial = folder.with_name(f"{folder.name}.partial")
        shutil.rmtree(partial, ignore_errors=True)
        partial.mkdir(parents=True)
        _prepare(file, partial)
        partial.rename(folder)
    return folder / "sequences"


def _prepare(file: Path, folder: Path) -> None:
    params = read_yaml(_ROOT / "params.yaml")
    columns = {"user": "user_id", "item": "item_id", "timestamp": None, "position": "position"}
    source = build(SourceSpec, {"kind": "file", "path": str(file), "columns": columns}, "source")
    # Every event of the published order counts: no k-core beyond what the file was made with, no time window.
    params["prepare"] |= {"min_user_events": 1, "min_item_events": 1, "window_days": 0, "min_rating": None}
    params["repeat_items"] = False
    night = {"as_of": _AS_OF, "source": source.model_dump()}
    reporter: Any = SilentReporter()
    ingest(snapshot=folder / "snapshot", params=_ingest(source), reporter=reporter)
    write_none(folder / "none")
    validate(
        snapshot=folder / "snapshot",
        previous_profile=folder / "none",
        accepted=folder / "accepted",
        quarantine=folder / "quarantine",
        profile=folder / "profile",
        verdict=folder / "verdict.json",
        data_docs=folder / "data_docs",
        params=build(ValidateParams, stage_values(ValidateParams, params, night), "params.yaml: validate"),
        reporter=reporter,
    )
    prepare(
        accepted=folder / "accepted",
        admitted=folder / "verdict.json",
        previous_vocabulary=folder / "none",
        vocabulary=folder / "vocabulary",
        sequences=folder / "sequences",
        params=build(PrepareParams, stage_values(PrepareParams, params, night), "params.yaml: prepare"),
        reporter=reporter,
    )


def _ingest(source: SourceSpec) -> IngestParams:
    found = build(IngestParams, {"as_of": _AS_OF, "source": source.model_dump(), "fingerprint": ""}, "night.yaml")
    return found.model_copy(update={"fingerprint": fingerprint(source, found.as_of)})
