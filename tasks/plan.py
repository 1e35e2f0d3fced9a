"""What a run will do: open a night, go on with one, or nothing. Looks, and changes nothing."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any
from zoneinfo import ZoneInfo

from stillhouse.errors import NightError, ParamsError
from stillhouse.params.base import build
from stillhouse.params.document import Document, load_document
from stillhouse.params.source import SourceSpec
from tasks import graph, versions
from tasks.night import Night, Plan, current_open, last_closed, read_night

__all__ = ["Request", "Standing", "plan_night", "standing"]


@dataclass(frozen=True)
class Request:
    """What ``stillhouse run`` was asked for."""

    workspace: Path
    source: str | None = None
    as_of: str | None = None
    force: bool = False


def plan_night(request: Request) -> Plan:
    """Decide what a run will do, changing nothing.

    Raises:
        ParamsError: a setting, the source or ``as_of`` is impossible.
        SourceError: the source cannot be reached or read.
        NightError: the workspace is no git repository, or ``as_of`` lies before the last closed night.
    """
    from stillhouse.data.sources import fingerprint

    root = request.workspace
    document, plain = load_document(root / "params.yaml")
    source = _source(request, plain["source"])
    spec = build(SourceSpec, source, "params.yaml: source")
    last = last_closed(root)
    current = current_open(root)
    asked = _parse_time(request.as_of, document) if request.as_of else None

    if current and _same_time(asked, current) and current.source == source:
        digest = fingerprint(spec, datetime.fromisoformat(current.as_of))
        if digest == current.fingerprint:
            return Plan("resume", current)
        if asked or spec.kind == "shop":
            return Plan("resume", replace(current, fingerprint=digest))
    if last and _same_time(asked, last):
        digest = fingerprint(spec, datetime.fromisoformat(last.as_of))
        if digest == last.fingerprint:
            return _known(root, request, last)
    as_of = asked or _due(spec)
    digest = fingerprint(spec, as_of)
    if last and digest == last.fingerprint and not request.force:
        return Plan("nothing", last)
    if last and as_of < datetime.fromisoformat(last.as_of):
        raise NightError(
            f"a night must be later than the last closed one ({last.id}), got as_of {as_of.isoformat()} (--as-of): "
            "past nights belong in a workspace of their own"
        )
    return Plan("open", _new_night(root, document, as_of, source, digest, last))


def _known(root: Path, request: Request, last: Night) -> Plan:
    """Plan for a source on which ``last`` has closed already."""
    stale = sorted(graph.changed(root)) if read_night(root) == last else ["another night's outputs"]
    if not request.force:
        hint = "settings or code have changed since: --force performs it again" if stale else ""
        return Plan("nothing", last, notes=(hint,) if hint else ())
    if not stale:
        return Plan("repeat", last)
    again = replace(last, id=_free_id(root, last.id.partition(".")[0]))
    return Plan("open", again, champion_only=True)


def _source(request: Request, default: Mapping[str, Any]) -> dict[str, Any]:
    chosen = dict(default)
    if request.source is None:
        return chosen
    if request.source == "shop":
        return {**chosen, "kind": "shop"}
    if "://" in request.source:
        return {**chosen, "kind": "sql", "url": request.source}
    keep = chosen.get("items_path") if chosen["kind"] == "file" else None
    return {**chosen, "kind": "file", "path": request.source, "items_path": keep}


def _parse_time(text: str, document: Document) -> datetime:
    try:
        moment = datetime.fromisoformat(text)
    except ValueError:
        raise ParamsError(
            f"as_of must be a date or an ISO time, such as 2026-03-02T03:00, got {text!r} (--as-of)"
        ) from None
    if moment.tzinfo is None:
        moment = moment.replace(tzinfo=ZoneInfo(document.night.timezone))
    return moment.astimezone(UTC)


def _same_time(asked: datetime | None, night: Night) -> bool:
    return asked is None or asked == datetime.fromisoformat(night.as_of)


def _due(spec: SourceSpec) -> datetime:
    """Return the time of a night that nobody scheduled: the shop's own first night, or this moment."""
    if spec.kind == "shop":
        from stillhouse.data.shop import first_as_of

        return first_as_of(spec.shop)
    return datetime.now(UTC).replace(microsecond=0)


def _new_night(
    root: Path, document: Document, as_of: datetime, source: Mapping[str, Any], digest: str, last: Night | None
) -> Night:
    name = as_of.strftime("%Y-%m-%d" if as_of.time() == datetime.min.time() else "%Y-%m-%dT%H%M%S")
    every = document.night.cold_every
    count = len(versions.nights(root, versions.CLOSED))
    return Night(
        id=_free_id(root, name),
        as_of=as_of.isoformat(),
        source=source,
        fingerprint=digest,
        cold=last is None or (every > 0 and count % every == 0),
        previous=last.id if last else None,
        champion=None,
    )


def _free_id(root: Path, name: str) -> str:
    taken = set(versions.nights(root, versions.CLOSED))
    revision = 2
    free = name
    while free in taken:
        free = f"{name}.{revision}"
        revision += 1
    return free


@dataclass(frozen=True)
class Standing:
    """How the workspace stands between nights."""

    closed: str | None
    closed_at: datetime | None
    open: str | None
    """A night that was opened and has not closed."""
    stale: tuple[str, ...]
    """Stages that a run would perform."""


def standing(root: Path) -> Standing:
    """Return the last closed night, the open one, and what is not up to date."""
    last, current = last_closed(root), current_open(root)
    at = versions.commit_time(root, last.id, versions.CLOSED) if last else None
    stale = tuple(name for name in sorted(graph.changed(root)) if name != "previous.dvc") if read_night(root) else ()
    return Standing(last.id if last else None, at, current.id if current else None, stale)
