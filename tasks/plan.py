"""What a run will do: open a night, go on with one, or nothing. Looks, and changes nothing.

============================  =================================================================
what is there                 what a run does
============================  =================================================================
an unclosed night, its        goes on with it (``resume``), or opens it again where it was
source unchanged              killed while it opened (``open``)
the same, but its student     a revision, for that decision stands and cannot be taken again
was promoted and settings
changed since
a source on which the last    ``nothing``; with ``--force`` the same once more (``repeat``), or a
night closed                  revision where settings, code, champion or reference have changed
another source for the last   a revision: the same start, other data
night's own ``as_of``
any of these nights, which    a revision that does
did not start cold, with
``--cold``
anything else                 a new night
============================  =================================================================
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import yaml

from stillhouse.errors import NightError, SourceError
from stillhouse.params.base import build, redacted
from stillhouse.params.document import Document, load_document
from stillhouse.params.source import SourceSpec
from tasks import graph, versions
from tasks.anchors import require_anchored
from tasks.champion import promoted_by
from tasks.clock import moment
from tasks.mending import look
from tasks.night import Night, Plan, last_closed, others, read_night, unclosed
from tasks.signing import trusted_keys

__all__ = ["Request", "Standing", "plan_night", "source_asked", "standing"]

#: Sections of params.yaml that the flow itself reads, and DVC therefore does not watch.
_FLOW_READS = ("gate", "night", "students")


@dataclass(frozen=True)
class Request:
    """What ``stillhouse run`` was asked for."""

    workspace: Path
    source: str | None = None
    as_of: str | None = None
    force: bool = False
    cold: bool = False
    """The weights are to start afresh, whatever ``night.cold_every`` says."""
    past: bool = False
    """``as_of`` is behind us, as a schedule's time always is: rows after it are a later night's, and no mistake."""


@dataclass(frozen=True)
class _Desk:
    """All that a plan is made from."""

    request: Request
    document: Document
    params: Mapping[str, Any]
    source: Mapping[str, Any]
    spec: SourceSpec
    last: Night | None
    asked: datetime | None
    fingerprint: Callable[[datetime], str]

    @property
    def root(self) -> Path:
        return self.request.workspace


def plan_night(request: Request) -> Plan:
    """Decide what a run will do, changing nothing.

    Raises:
        ParamsError: a setting, the source or ``as_of`` is impossible.
        SourceError: the source cannot be reached or read.
        NightError: ``as_of`` lies before the last closed night, or the source is of another kind of data.
        RegistryError: the ledger is not whole.
    """
    require_anchored(request.workspace)  # a ledger that is not whole stops a run before anything is looked at
    trusted_keys()  # and so does a key that is none, before anything is trained
    desk = _desk(request)
    current = unclosed(desk.root)
    if current is None:
        return _planned(desk)
    if (plan := _go_on(desk, current)) is not None:
        return plan
    plan = _planned(desk)
    note = f"night {current.id}, which was opened and has not closed, is left behind"
    return replace(plan, notes=(*plan.notes, note))


def _planned(desk: _Desk) -> Plan:
    """Plan for a workspace in which no night is under way that a run would go on with."""
    as_of = desk.asked or _due(desk)
    last = desk.last
    if last is None:
        return Plan("open", _new_night(desk, as_of))
    _require_follows(desk, as_of, last)
    if desk.fingerprint(as_of) == last.fingerprint and not (
        desk.request.force and desk.asked not in (None, _time(last))
    ):
        return _known(desk, last)
    if as_of == _time(last):
        return Plan("open", _revision(desk, last, fingerprint=desk.fingerprint(as_of), source=desk.source))
    return Plan("open", _new_night(desk, as_of))


def _desk(request: Request) -> _Desk:
    from stillhouse.data.sources import fingerprint, is_position_ordered

    document, params = load_document(request.workspace / "params.yaml")
    source = source_asked(request, params["source"])
    spec = build(SourceSpec, source, "params.yaml: source")
    if request.past and spec.kind != "shop" and not is_position_ordered(spec):  # the shop has none after its time
        source = {**source, "later_rows": "leave"}
        spec = build(SourceSpec, source, "params.yaml: source")
    seen: dict[datetime, str] = {}

    def cached(as_of: datetime) -> str:
        if as_of not in seen:
            seen[as_of] = fingerprint(spec, as_of)
        return seen[as_of]

    asked = None if request.as_of is None else moment(request.as_of, document.night.timezone, "as_of (--as-of)")
    return _Desk(request, document, params, source, spec, last_closed(request.workspace), asked, cached)


def _go_on(desk: _Desk, current: Night) -> Plan | None:
    """Plan for a night that has not closed; ``None`` where it is left behind."""
    if desk.request.past and _but_later(current.source) == _but_later(desk.source):
        current = replace(current, source=desk.source)  # it was opened by a person, or before its time was past
    if current.source != desk.source or desk.asked not in (None, _time(current)):
        return None
    digest = desk.fingerprint(_time(current))
    if digest != current.fingerprint:
        if desk.asked is None and desk.spec.kind != "shop":
            return None  # the data has moved on, and so has the time
        current = replace(current, fingerprint=digest)
    if versions.tag_commit(desk.root, current.id, versions.OPEN) is None:
        return Plan("open", replace(current, cold=current.cold or desk.request.cold))
    if desk.request.cold and not current.cold:
        return Plan("open", _revision(desk, current))
    if promoted_by(desk.root, current.id) and _stale(desk, current, versions.OPEN):
        return Plan("open", _revision(desk, current))
    return Plan("resume", current)


def _but_later(source: Mapping[str, Any]) -> dict[str, Any]:
    return {key: value for key, value in source.items() if key != "later_rows"}


def _known(desk: _Desk, last: Night) -> Plan:
    """Plan for a source on which ``last`` has closed already."""
    if desk.request.cold and not last.cold:
        return Plan("open", _revision(desk, last))
    stale = _stale(desk, last, versions.CLOSED)
    if not desk.request.force:
        return Plan("nothing", last, notes=(f"{stale}: --force performs the night again",) if stale else ())
    return Plan("open", _revision(desk, last)) if stale or others(desk.root, last) else Plan("repeat", last)


def _stale(desk: _Desk, night: Night, state: str) -> str:
    """Say what has changed since ``night`` was tagged, "" where nothing has."""
    found = read_night(desk.root)
    if found is None or found.id != night.id:
        return "another night was opened since"
    commit = versions.tag_commit(desk.root, night.id, state) or ""
    held = yaml.safe_load(versions.read_at(desk.root, commit, "params.yaml"))
    changed = [name for name in _FLOW_READS if _weighed(held, name) != _weighed(desk.params, name)]
    differs = graph.changed(desk.root)
    if not changed and (spoiled := graph.spoiled(differs)):
        files = " ".join(spoiled)
        mends = f"`dvc checkout --force {files}` brings it back"
        return f"{files} must be what its stage made, found it changed or gone ({mends})"
    if changed or differs:
        return f"settings or code have changed since ({', '.join(dict.fromkeys([*changed, *sorted(differs)]))})"
    lock = (desk.root / versions.LOCK).read_text(encoding="utf-8").strip()
    if state == versions.CLOSED and lock != versions.read_at(desk.root, commit, versions.LOCK):
        return "stages were performed by hand since"
    return ""


def _weighed(params: Mapping[str, Any], section: str) -> Any:
    """Return what of a section would make a night that is performed again another one."""
    value = params.get(section)
    return {key: one for key, one in value.items() if key != "cold_every"} if section == "night" and value else value


def _require_follows(desk: _Desk, as_of: datetime, last: Night) -> None:
    if as_of < _time(last):
        raise NightError(
            f"a night must not be earlier than the last closed one ({last.id}), got as_of {as_of.isoformat()}: "
            "give a later --as-of; past nights belong in a workspace of their own"
        )
    if (last.source["kind"] == "shop") != (desk.spec.kind == "shop"):
        raise NightError(
            f"the built-in shop and other data must not share a workspace, the last night ({last.id}) was of kind "
            f"{last.source['kind']}, got {desk.spec.kind} (params.yaml: source.kind, --source): run it in a fresh clone"
        )


def source_asked(request: Request, default: Mapping[str, Any]) -> dict[str, Any]:
    """Return the section ``source`` of a run: ``default`` as params.yaml has it, changed by what was asked for.

    Raises:
        SourceError: nothing is where the request says.
    """
    chosen = dict(default)
    if request.source is None:
        return chosen
    if request.source == "shop":
        return {**chosen, "kind": "shop"}
    if "://" in request.source:
        return {**chosen, "kind": "sql", "url": request.source}
    if not (request.workspace / request.source).exists():
        raise SourceError(
            "a source must be a file, a folder, an SQL URL or shop, "
            f"found none at {redacted(request.source)} (--source; paths are relative to the workspace)"
        )
    keep = chosen.get("items_path") if chosen["kind"] == "file" else None
    return {**chosen, "kind": "file", "path": request.source, "items_path": keep}


def _time(night: Night) -> datetime:
    return datetime.fromisoformat(night.as_of)


def _due(desk: _Desk) -> datetime:
    """Return the time of a night that nobody scheduled: the shop's own last or first night, or this moment."""
    if desk.spec.kind == "shop":
        from stillhouse.data.shop import first_as_of

        return _time(desk.last) if desk.last is not None else first_as_of(desk.spec.shop)
    return datetime.now(UTC).replace(microsecond=0)


def _new_night(desk: _Desk, as_of: datetime) -> Night:
    every = desk.document.night.cold_every
    count = len({_plain(name) for name in versions.nights(desk.root, versions.CLOSED)})
    return Night(
        id=_free_id(
            desk.root, as_of.strftime("%Y-%m-%d" if as_of.time() == datetime.min.time() else "%Y-%m-%dT%H%M%S")
        ),
        as_of=as_of.isoformat(),
        source=desk.source,
        fingerprint=desk.fingerprint(as_of),
        cold=desk.last is None or desk.request.cold or (every > 0 and count % every == 0),
        previous=desk.last.id if desk.last else None,
        revises=None,
        champion=None,
    )


def _revision(desk: _Desk, night: Night, **changes: Any) -> Night:
    """Return ``night`` once more under a free id: it starts from what ``night`` started from, or cold as asked."""
    again = _free_id(desk.root, _plain(night.id))
    return replace(night, id=again, revises=night.id, cold=night.cold or desk.request.cold, **changes)


def _plain(night: str) -> str:
    """Return a night's id without the number of its revision."""
    return night.partition(".")[0]


def _free_id(root: Path, name: str) -> str:
    taken = {*versions.nights(root, versions.CLOSED), *versions.nights(root, versions.OPEN)}
    revision, free = 2, name
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
    last, current = last_closed(root), unclosed(root)
    at = versions.commit_time(root, last.id, versions.CLOSED) if last else None
    changed = look(root, lambda: graph.changed(root)) if read_night(root) else {}
    stale = tuple(name for name in sorted(changed) if name != "previous.dvc")
    return Standing(last.id if last else None, at, current.id if current else None, stale)
