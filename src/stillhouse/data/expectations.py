"""Great Expectations at arm's length: one suite, one checkpoint, an ephemeral context.

This is the only module that runs Great Expectations. It sends nothing
anywhere, leaves nothing behind but the Data Docs it is asked for, and raises
whatever goes wrong inside an expectation instead of taking it for bad data.
"""

from __future__ import annotations

import gc
import os
import warnings
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pandas as pd

__all__ = ["Expectation", "Outcome", "run_suite"]

#: What Great Expectations 1.24 and its parts warn of while they are imported and run; none is about the data.
_THEIR_WARNINGS = (("module 'sre_(constants|parse)' is deprecated", DeprecationWarning),)


@dataclass(frozen=True)
class Expectation:
    """One expectation of the suite."""

    name: str
    """The check's name; unique in the suite."""
    kind: str
    """The class of ``great_expectations.expectations``, such as ``ExpectColumnValuesToBeInSet``."""
    arguments: Mapping[str, Any]
    """The arguments of that class."""
    text: str
    """What must hold: shown in the Data Docs."""


@dataclass(frozen=True)
class Outcome:
    """What one expectation found."""

    success: bool
    value: Any
    """Number of unexpected rows for an expectation about rows; the observed value for one about the table."""


def run_suite(frame: pd.DataFrame, expectations: Sequence[Expectation], docs: Path) -> dict[str, Outcome]:
    """Check ``frame`` by one checkpoint and write the Data Docs as Great Expectations makes them.

    Args:
        frame: one row a snapshot's row; holds every column that an expectation names.
        expectations: the suite.
        docs: directory to be made for the Data Docs.

    Returns:
        Outcome by the expectation's name.

    Raises:
        RuntimeError: an expectation could not be evaluated; a defect, not bad data.
    """
    with _quiet(), _without_idle_scans():
        outcomes = _run(frame, expectations, docs)
        _forget()
    return outcomes


def _run(frame: pd.DataFrame, expectations: Sequence[Expectation], docs: Path) -> dict[str, Outcome]:
    gx = _library()
    context = gx.get_context(mode="ephemeral")
    _still(context, docs)
    checkpoint = _checkpoint(gx, context, expectations)
    result = checkpoint.run(batch_parameters={"dataframe": frame})
    context.build_data_docs(["night"])
    [validation] = result.run_results.values()
    return dict(_outcome(one) for one in validation.results)


@contextmanager
def _quiet() -> Iterator[None]:
    os.environ["GX_ANALYTICS_ENABLED"] = "false"
    with warnings.catch_warnings():
        for message, category in _THEIR_WARNINGS:
            warnings.filterwarnings("ignore", message=message, category=category)
        yield


def _library() -> Any:
    """Import Great Expectations; looking for garbage meanwhile would take a sixth of the time."""
    collecting = gc.isenabled()
    gc.disable()
    try:
        import great_expectations
    finally:
        if collecting:
            gc.enable()
    return great_expectations


@contextmanager
def _without_idle_scans() -> Iterator[None]:
    """Leave out two scans of every value: half of the suite's time on ten million rows, for nothing that is judged.

    Version 1.24 takes a fingerprint of every frame below a gigabyte; and it
    looks, one Python object after the other, whether a column that is summed
    holds ``decimal.Decimal``, which no column here does.
    """
    _library()
    from great_expectations.execution_engine import pandas_execution_engine as engine
    from great_expectations.expectations.metrics.column_aggregate_metrics import column_sum

    idle = ((engine, "HASH_THRESHOLD", 0), (column_sum, "convert_pandas_series_decimal_to_float_dtype", _no_decimals))
    before = [getattr(module, name) for module, name, _ in idle]
    for module, name, other in idle:
        setattr(module, name, other)
    try:
        yield
    finally:
        for (module, name, _), value in zip(idle, before, strict=True):
            setattr(module, name, value)


def _no_decimals(data: pd.Series, inplace: bool = False) -> pd.Series | None:
    return None if inplace else data


def _forget() -> None:
    """Let go of the frame, which the library's idea of a current project keeps: gigabytes on a large night."""
    from great_expectations.data_context.data_context.context_factory import project_manager

    project_manager.set_project(None)
    gc.collect()


def _still(context: Any, docs: Path) -> None:
    """No progress bars, no site in a temporary folder: one site, in ``docs``."""
    from great_expectations.data_context.types.base import ProgressBarsConfig

    context.variables.progress_bars = ProgressBarsConfig(globally=False)
    context.delete_data_docs_site("local_site")
    site = {
        "class_name": "SiteBuilder",
        "show_how_to_buttons": False,
        "site_index_builder": {"class_name": "DefaultSiteIndexBuilder"},
        "store_backend": {"class_name": "TupleFilesystemStoreBackend", "base_directory": str(docs.resolve())},
    }
    context.add_data_docs_site("night", site)


def _checkpoint(gx: Any, context: Any, expectations: Sequence[Expectation]) -> Any:
    source = context.data_sources.add_pandas("snapshot")
    batch = source.add_dataframe_asset("interactions").add_batch_definition_whole_dataframe("night")
    every = [_expectation(gx, one) for one in expectations]
    suite = context.suites.add(gx.ExpectationSuite(name="what_may_enter", expectations=every))
    definition = gx.ValidationDefinition(name="night", data=batch, suite=suite)
    # SUMMARY: twenty examples for the docs. Which rows fail is known from the frame; COMPLETE would list millions.
    return context.checkpoints.add(
        gx.Checkpoint(
            name="night",
            validation_definitions=[context.validation_definitions.add(definition)],
            result_format={"result_format": "SUMMARY"},
        )
    )


def _expectation(gx: Any, one: Expectation) -> Any:
    return getattr(gx.expectations, one.kind)(**one.arguments, description=one.text, meta={"check": one.name})


def _outcome(one: Any) -> tuple[str, Outcome]:
    name = one.expectation_config.meta["check"]
    if one.exception_info and "exception_message" not in one.exception_info:
        # Without an exception this is one flat mapping; with some, a mapping of metric to exception.
        raise RuntimeError(f"Great Expectations could not evaluate {name!r}: {one.exception_info}")
    if one.exception_info and one.exception_info["raised_exception"]:
        raise RuntimeError(f"Great Expectations could not evaluate {name!r}: {one.exception_info['exception_message']}")
    found = one.result
    value = found["unexpected_count"] if "unexpected_count" in found else found.get("observed_value")
    return name, Outcome(success=bool(one.success), value=value)
