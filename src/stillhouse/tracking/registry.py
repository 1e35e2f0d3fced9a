"""The registered models ``student`` and ``teacher``: every student and every teacher of every night is a version.

A version is keyed by its content's hash and its night: a student's content is its package, which is kept with the
version, a teacher's its checkpoint, which stays in DVC and is named by its hash. Registering goes through
steps (a logged model, its files, the version, the mark that it is whole); each
looks first for what a killed attempt left behind, so that running it again ends
with one version and one set of files.
"""

from __future__ import annotations

import hashlib
import shutil
import tempfile
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

from stillhouse.data.files import sha256_tree
from stillhouse.errors import AlteredError, RegistryError, one_line
from stillhouse.tracking.artifact import ENVELOPE, PACKAGE, STATEMENT, write_artifact, write_record
from stillhouse.tracking.runs import log_model_metrics, quoted
from stillhouse.tracking.store import Store, connect

if TYPE_CHECKING:
    from mlflow.entities import LoggedModel
    from mlflow.entities.model_registry import ModelVersion

__all__ = [
    "STATEMENT",
    "STUDENT",
    "TEACHER",
    "VersionInfo",
    "champion",
    "download",
    "read_envelope",
    "read_statement",
    "register_student",
    "register_teacher",
    "statement_of",
    "version_of",
    "versions",
]

#: The registered models.
STUDENT = "student"
#: Letters of a version's description, as MLflow's tables on a server hold them.
_LONGEST = 5000
TEACHER = "teacher"

#: Registered model → what it says about itself.
_ABOUT = {
    STUDENT: "Students that Stillhouse distilled.",
    TEACHER: "Teachers of those students. Their weights are in DVC, named by the tag md5.",
}
#: Registered model → the tag that names a version's content.
_CONTENT = {STUDENT: "package", TEACHER: "checkpoint"}

_WHOLE = "whole"  # the finishing tag
_MODEL = "model_id"
_PAGE = 1000


@dataclass(frozen=True)
class VersionInfo:
    """One registered student or teacher."""

    version: int
    night: str
    name: str
    """The student's name in ``params.yaml``; of a teacher, ``teacher``."""
    package: str
    """SHA-256 of the package, of a teacher of its checkpoint (`stillhouse.data.files.sha256_tree`)."""
    statement: str
    """SHA-256 of ``lineage.json``."""
    verdict: str
    """The gate's: ``passed`` or ``refused``; ``check_teacher`` lets no other teacher than one that passed go on."""
    reason: str
    run_id: str
    model_id: str
    """MLflow's logged model."""
    location: str
    """Where the artifact's files are, as MLflow names it."""
    created: int
    """Milliseconds since the epoch."""
    tags: Mapping[str, str] = field(default_factory=dict)
    model: str = STUDENT
    """The registered model that it is a version of."""

    @property
    def label(self) -> str:
        """What a message calls it: ``version 3``, ``teacher version 3``."""
        return f"version {self.version}" if self.model == STUDENT else f"{self.model} version {self.version}"


def register_student(
    workspace: Path,
    package: Path,
    *,
    night: str,
    name: str,
    digest: str,
    statement: bytes,
    envelope: bytes | None = None,
    card: str,
    metrics: Mapping[str, object],
    verdict: str,
    reason: str,
    histories: Sequence[Sequence[str]],
    run_id: str,
    teacher: int | None = None,
) -> int:
    """Return the version that holds ``package`` of ``night``, registered where it is not.

    Args:
        workspace: the folder of ``params.yaml``.
        package: the package directory.
        night: the night's id.
        name: the student's name in ``params.yaml``.
        digest: what `stillhouse.data.files.sha256_tree` gives for ``package``.
        statement: ``lineage.json``, canonical bytes (`stillhouse.lineage.statement.canonical`).
        envelope: its signature (`stillhouse.lineage.signing.sign`); ``None``: it is not signed.
        card: the model card, Markdown; also the version's description.
        metrics: nested or flat; kept with the logged model.
        verdict: ``passed`` or ``refused``.
        reason: the gate's, one line.
        histories: a few histories of item ids, oldest first: the input example.
        run_id: the run that the version belongs to (the night's).
        teacher: the registered version of the teacher that taught it; ``None``: it is not registered.

    Raises:
        RegistryError: ``package`` is not what ``digest`` says.
    """
    if (found := sha256_tree(package)) != digest:
        raise RegistryError(f"the package must hash to {digest[:12]}, found {found[:12]} ({package}): package it again")
    artifact = partial(
        write_artifact, package=package, statement=statement, envelope=envelope, card=card, histories=histories
    )
    facts = {STUDENT: name, "verdict": verdict, "reason": reason, "statement": _sha256(statement)}
    if teacher is not None:
        facts[TEACHER] = str(teacher)
    key = {_CONTENT[STUDENT]: digest, "night": night}
    return _register(connect(workspace), STUDENT, key, facts, artifact, run_id=run_id, metrics=metrics, card=card)


def register_teacher(
    workspace: Path,
    *,
    night: str,
    digest: str,
    md5: str,
    statement: bytes,
    envelope: bytes | None = None,
    card: str,
    metrics: Mapping[str, object],
    reason: str,
    facts: Mapping[str, str],
    run_id: str,
) -> int:
    """Return the version that stands for a checkpoint of ``night``, registered where it is not.

    Kept with it are its record, its card and its figures. The checkpoint itself is DVC's to keep.

    Args:
        workspace: the folder of ``params.yaml``.
        night: the night's id.
        digest: what `stillhouse.data.files.sha256_tree` gives for the checkpoint.
        md5: DVC's name of the checkpoint, by which it is restored.
        statement: ``lineage.json``, canonical bytes (`stillhouse.lineage.statement.canonical`).
        envelope: its signature (`stillhouse.lineage.signing.sign`); ``None``: it is not signed.
        card: the model card, Markdown; also the version's description.
        metrics: nested or flat; kept with the logged model and as ``metrics.json``.
        reason: why it was let through, one line.
        facts: further tags: what a list of teachers shows without opening a record.
        run_id: the run that the version belongs to (the night's).
    """
    artifact = partial(write_record, statement=statement, envelope=envelope, card=card, metrics=metrics)
    known = {TEACHER: TEACHER, "md5": md5, "verdict": "passed", "reason": reason, "statement": _sha256(statement)}
    key = {_CONTENT[TEACHER]: digest, "night": night}
    return _register(
        connect(workspace), TEACHER, key, {**facts, **known}, artifact, run_id=run_id, metrics=metrics, card=card
    )


def _register(
    store: Store,
    name: str,
    key: Mapping[str, str],
    facts: Mapping[str, str],
    artifact: Callable[..., None],
    *,
    run_id: str,
    metrics: Mapping[str, object],
    card: str,
) -> int:
    """Return the version of the registered model ``name`` that ``key`` names, made where there is none."""
    version = _only(store, name, key)
    if version is None:
        model = _ready_model(store, key)
        if model is None:
            model = _log_model(store, name, {**key, name: facts[name]}, run_id, metrics, artifact)
        _create(store, name, model, {**key, **facts}, run_id, card)
        version = _only(store, name, key)
    if version is None:
        raise RegistryError(
            f"version of {facts[name]} ({key['night']}) was deleted while it was registered (registered model {name})"
        )
    if version.tags.get(_WHOLE) != "true":
        store.client.set_model_version_tag(name, str(version.version), _WHOLE, "true")
    return int(version.version)


def _only(store: Store, name: str, key: Mapping[str, str]) -> ModelVersion | None:
    """Return the version of ``key``; of several, which two writers at once can make, the first, and delete the rest."""
    found = _search(store, name, key)
    for surplus in found[1:]:
        store.client.delete_model_version(name, str(surplus.version))
        if surplus.tags[_MODEL] != found[0].tags[_MODEL]:
            store.client.delete_logged_model(surplus.tags[_MODEL])
    return found[0] if found else None


def _search(store: Store, name: str, key: Mapping[str, str]) -> list[ModelVersion]:
    criterion = " and ".join([f"name = '{name}'", *(f"tags.{tag} = {quoted(value)}" for tag, value in key.items())])
    found: list[ModelVersion] = []
    token: str | None = None
    while True:
        page = store.client.search_model_versions(criterion, max_results=_PAGE, page_token=token)
        found.extend(page)
        token = page.token
        if not token:
            return sorted(found, key=lambda version: int(version.version))


def _ready_model(store: Store, key: Mapping[str, str]) -> LoggedModel | None:
    """Return the logged model that an earlier attempt finished; what one left half-made is deleted."""
    criterion = " and ".join(f"tags.{tag} = {quoted(value)}" for tag, value in key.items())
    ready = None
    for model in store.client.search_logged_models([store.experiment_id], criterion):
        if ready is None and str(model.status) == "READY":
            ready = model
        else:
            store.client.delete_logged_model(model.model_id)
    return ready


def _log_model(
    store: Store,
    name: str,
    tags: dict[str, str],
    run_id: str,
    metrics: Mapping[str, object],
    artifact: Callable[..., None],
) -> LoggedModel:
    from mlflow.models import Model

    model = store.client.create_logged_model(
        store.experiment_id, name=tags[name], source_run_id=run_id, tags=tags, model_type=name
    )
    with tempfile.TemporaryDirectory() as temporary:
        folder = Path(temporary) / "artifact"
        artifact(folder, model=Model(model_id=model.model_id, run_id=run_id, artifact_path=model.artifact_location))
        store.client.log_model_artifacts(model.model_id, str(folder))
    log_model_metrics(store, run_id, model.model_id, metrics)
    return store.client.finalize_logged_model(model.model_id, "READY")


def _create(store: Store, name: str, model: LoggedModel, tags: dict[str, str], run_id: str, card: str) -> None:
    from mlflow.exceptions import MlflowException

    try:
        store.client.create_registered_model(name, description=_ABOUT[name])
    except MlflowException as error:
        if error.error_code != "RESOURCE_ALREADY_EXISTS":
            raise
    tags = {**tags, _MODEL: model.model_id}  # a version on SQL does not name its logged model by itself
    store.client.create_model_version(
        name, model.artifact_location, run_id, tags=tags, description=_cut(card), model_id=model.model_id
    )


def _cut(card: str) -> str:
    """Return ``card`` as the registry's column of text takes it; the whole of it stands among the model's files."""
    return card if len(card) <= _LONGEST else f"{card[: _LONGEST - 1]}…"


def version_of(workspace: Path, version: int, model: str = STUDENT) -> VersionInfo:
    """Return the version of that number of a registered model.

    Raises:
        RegistryError: there is none.
    """
    store = connect(workspace)
    from mlflow.exceptions import MlflowException

    try:
        return _info(store.client.get_model_version(model, str(version)))
    except MlflowException as error:
        if error.error_code not in ("RESOURCE_DOES_NOT_EXIST", "INVALID_PARAMETER_VALUE"):
            raise
        known = ", ".join(str(info.version) for info in versions(workspace, model=model)[-10:]) or "none"
        raise RegistryError(
            f"version must be one of {known}; got {version} (registered model {model} at {store.tracking.shown})"
        ) from None


def versions(workspace: Path, night: str | None = None, model: str = STUDENT) -> list[VersionInfo]:
    """Return all versions of a registered model, or those of one night, in the order of their numbers."""
    found = _search(connect(workspace), model, {} if night is None else {"night": night})
    return [_info(version) for version in found]


def champion(workspace: Path) -> VersionInfo | None:
    """Return the version that the alias ``champion`` names, or ``None`` where there is none.

    The alias is a projection; who must be sure asks the ledger.
    """
    client = connect(workspace).client
    from mlflow.exceptions import MlflowException

    try:
        return _info(client.get_model_version_by_alias(STUDENT, "champion"))
    except MlflowException as error:
        if error.error_code in ("RESOURCE_DOES_NOT_EXIST", "INVALID_PARAMETER_VALUE"):
            return None
        raise


def download(workspace: Path, version: int, destination: Path) -> Path:
    """Copy the package of ``version`` to ``destination``, which must not exist, and return it.

    Raises:
        RegistryError: there is no such version, its files are gone, or they do not hash to what was registered.
    """
    info = version_of(workspace, version)
    with tempfile.TemporaryDirectory() as temporary:
        found = _fetch(workspace, info, PACKAGE, Path(temporary))
        actual = sha256_tree(found)
        if actual != info.package:
            raise AlteredError(
                f"the package of version {version} must hash to {info.package[:12]}, found {actual[:12]} "
                f"({info.location}): its files were altered; restore them from a backup"
            )
        destination.parent.mkdir(parents=True, exist_ok=True)
        shutil.copytree(found, destination, copy_function=shutil.copyfile)
    return destination


def read_statement(workspace: Path, version: int, model: str = STUDENT) -> bytes:
    """Return the bytes of ``lineage.json`` of ``version``.

    Raises:
        RegistryError: there is no such version, or the file is gone.
        AlteredError: the file is not what was registered.
    """
    return statement_of(workspace, version_of(workspace, version, model))


def statement_of(workspace: Path, info: VersionInfo) -> bytes:
    """Do the work of `read_statement` for a version that was looked up already."""
    data = _read(workspace, info, STATEMENT)
    if _sha256(data) != info.statement:
        raise AlteredError(
            f"{STATEMENT} of {info.label} must hash to {info.statement[:12]}, found {_sha256(data)[:12]} "
            f"({info.location}): it was altered; restore it from a backup"
        )
    return data


def read_envelope(workspace: Path, version: int, model: str = STUDENT) -> bytes | None:
    """Return the signature on ``lineage.json`` of ``version``, ``None`` where it was not signed.

    Raises:
        RegistryError: there is no such version, or its files are gone.
    """
    from mlflow.artifacts import list_artifacts

    info = version_of(workspace, version, model)
    there = list_artifacts(info.location, tracking_uri=connect(workspace).tracking.uri)
    if not any(Path(file.path).name == ENVELOPE for file in there):
        return None
    return _read(workspace, info, ENVELOPE)


def _fetch(workspace: Path, info: VersionInfo, path: str, folder: Path) -> Path:
    """Return a path of the version's artifact: where it lies, if that is on this machine, or a copy in ``folder``."""
    from mlflow.artifacts import download_artifacts

    place = _here(info, path)
    if place is not None:
        return place
    with _must_be_there(info, path):
        tracking = connect(workspace).tracking.uri
        return Path(download_artifacts(_uri(info, path), dst_path=str(folder), tracking_uri=tracking))


def _read(workspace: Path, info: VersionInfo, path: str) -> bytes:
    """Return the bytes of a file of the version's artifact.

    A server is asked once. `download_artifacts` asks first whether the path is a folder, and of a thousand records
    that is half of what both sides have to do.
    """
    from mlflow.store.artifact.artifact_repository_registry import get_artifact_repository

    place = _here(info, path)
    if place is not None:
        return place.read_bytes()
    with _must_be_there(info, path), tempfile.TemporaryDirectory() as folder:
        copy = Path(folder) / Path(path).name
        repository = get_artifact_repository(info.location, tracking_uri=connect(workspace).tracking.uri)
        # What MLflow has every kind of store implement.
        repository._download_file(path, str(copy))  # type: ignore[no-untyped-call]
        return copy.read_bytes()


def _uri(info: VersionInfo, path: str) -> str:
    return f"{info.location.rstrip('/')}/{path}"


def _here(info: VersionInfo, path: str) -> Path | None:
    """Return where a path of the version's artifact lies on this machine; ``None``: it does not."""
    from mlflow.utils.file_utils import local_file_uri_to_path
    from mlflow.utils.uri import is_local_uri

    uri = _uri(info, path)
    local = is_local_uri(uri, is_tracking_or_registry_uri=False)  # type: ignore[no-untyped-call]
    place = local_file_uri_to_path(uri) if local else None  # type: ignore[no-untyped-call]
    return Path(place) if place is not None and Path(place).exists() else None


@contextmanager
def _must_be_there(info: VersionInfo, path: str) -> Iterator[None]:
    from mlflow.exceptions import MlflowException

    try:
        yield
    except (MlflowException, OSError) as error:
        text = f"the files of {info.label} must be there, got: {error} ({_uri(info, path)})"
        raise RegistryError(one_line(text)) from None


def _sha256(data: bytes) -> str:
    return hashlib.sha256(data).hexdigest()


def _info(version: ModelVersion) -> VersionInfo:
    tags = dict(version.tags)
    known = {name: tags.get(name, "") for name in ("night", "statement", "verdict", "reason")}
    model = str(version.name)
    return VersionInfo(
        version=int(version.version),
        name=tags.get(model, ""),
        package=tags.get(_CONTENT[model], ""),
        run_id=version.run_id or "",
        model_id=tags.get(_MODEL, ""),
        location=version.source or "",
        created=int(version.creation_timestamp or 0),
        tags=tags,
        model=model,
        **known,
    )
