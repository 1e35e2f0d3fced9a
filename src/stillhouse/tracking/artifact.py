"""The folder that is registered: MLflow's pyfunc around a package, with its record; no pickle, no torch, no Stillhouse.

::

    MLmodel  conda.yaml  python_env.yaml  requirements.txt  input_example.json  serving_input_example.json
    README.md               the model card
    lineage.json            the in-toto Statement
    lineage.dsse.json       its signature, where there is one
    code/stillhouse_pyfunc.py
    data/package/           the package, byte for byte

Of a teacher, whose checkpoint stays in DVC, the record alone: card, Statement, signature and ``metrics.json``.
"""

from __future__ import annotations

import importlib.util
import shutil
import tempfile
import warnings
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from importlib.metadata import version
from pathlib import Path
from typing import TYPE_CHECKING

from stillhouse.data.files import write_bytes, write_json

if TYPE_CHECKING:
    from mlflow.models import Model, ModelSignature

__all__ = [
    "CARD",
    "ENVELOPE",
    "LOADER",
    "METRICS",
    "PACKAGE",
    "REQUIREMENTS",
    "STATEMENT",
    "write_artifact",
    "write_record",
]

#: Module that loads a student where nothing of Stillhouse is installed.
LOADER = "stillhouse_pyfunc"
#: Where the package lies in the artifact.
PACKAGE = "data/package"
STATEMENT = "lineage.json"
ENVELOPE = "lineage.dsse.json"
CARD = "README.md"
METRICS = "metrics.json"

#: What a served student needs; the versions are this environment's.
REQUIREMENTS = ("onnxruntime", "numpy", "pandas", "pyarrow")


def write_artifact(
    folder: Path,
    package: Path,
    *,
    statement: bytes,
    envelope: bytes | None,
    card: str,
    histories: Sequence[Sequence[str]],
    model: Model,
) -> None:
    """Write the artifact for ``package`` into ``folder``, which must not exist.

    Args:
        folder: where to.
        package: a package directory.
        statement: ``lineage.json``, exactly these bytes.
        envelope: its signature; ``None``: it is not signed.
        card: the model card, Markdown.
        histories: item ids, oldest first: the input example; at least one history, none of them empty.
        model: MLflow's model, which carries the id of the logged model.
    """
    import pandas as pd

    with _quiet():
        import mlflow.pyfunc
    with tempfile.TemporaryDirectory() as temporary:
        copy = Path(temporary) / "package"
        shutil.copytree(package, copy, copy_function=shutil.copyfile)
        mlflow.pyfunc.save_model(
            str(folder),
            loader_module=LOADER,
            data_path=str(copy),
            code_paths=[str(_loader())],
            pip_requirements=[f"{name}=={version(name)}" for name in REQUIREMENTS],
            signature=_signature(),
            input_example=(pd.DataFrame({"history": [list(history) for history in histories]}), {"k": 10}),
            mlflow_model=model,
        )
    _write_papers(folder, statement, envelope, card)


def write_record(
    folder: Path,
    *,
    statement: bytes,
    envelope: bytes | None,
    card: str,
    metrics: Mapping[str, object],
    model: Model,
) -> None:
    """Write what is kept with a version whose content is kept elsewhere into ``folder``, which must not exist.

    Args:
        folder: where to.
        statement: ``lineage.json``, exactly these bytes.
        envelope: its signature; ``None``: it is not signed.
        card: the model card, Markdown.
        metrics: plain data, for ``metrics.json``.
        model: MLflow's model, which has nothing to load here.
    """
    folder.mkdir(parents=True)
    _write_papers(folder, statement, envelope, card)
    write_json(folder / METRICS, metrics)


def _write_papers(folder: Path, statement: bytes, envelope: bytes | None, card: str) -> None:
    write_bytes(folder / STATEMENT, statement)
    if envelope is not None:
        write_bytes(folder / ENVELOPE, envelope)
    write_bytes(folder / CARD, card.encode("utf-8"))


@contextmanager
def _quiet() -> Iterator[None]:
    """Silence what MLflow says about its own type hints while it is imported."""
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message=".*Any type hint is inferred as AnyType", category=UserWarning)
        yield


def _loader() -> Path:
    """Find the loader's file without importing it."""
    spec = importlib.util.find_spec(f"stillhouse.serve.{LOADER}")
    if spec is None or spec.origin is None:
        raise ModuleNotFoundError(f"stillhouse.serve.{LOADER} is not installed")
    return Path(spec.origin)


def _signature() -> ModelSignature:
    from mlflow.models import ModelSignature
    from mlflow.types import ColSpec, DataType, ParamSchema, ParamSpec, Schema
    from mlflow.types.schema import AnyType, Array

    return ModelSignature(
        # Not strings: MLflow makes those of a list's numbers and nulls itself, by the shortest of them, and so cuts
        # every id of a history with a null in it to one letter. The loader looks at each id.
        inputs=Schema([ColSpec(AnyType(), "history")]),  # type: ignore[no-untyped-call]
        outputs=Schema(
            [
                ColSpec(Array(DataType.string), "items"),
                ColSpec(Array(DataType.double), "scores"),
                ColSpec(DataType.string, "kind"),
            ]
        ),
        params=ParamSchema([ParamSpec("k", DataType.long, 10)]),
    )
