"""Settings of the stage ``ingest``."""

from __future__ import annotations

from datetime import datetime
from typing import ClassVar

from stillhouse.params.base import StageParams
from stillhouse.params.source import SourceSpec

__all__ = ["IngestParams"]


class IngestParams(StageParams):
    """What ``ingest`` reads: all of it belongs to the night."""

    section: ClassVar[str] = "ingest"
    night: ClassVar[tuple[str, ...]] = ("as_of", "source", "fingerprint")

    as_of: datetime
    """The night's scheduled time (UTC); nothing later is looked at."""
    source: SourceSpec
    fingerprint: str
    """Digest of the source when the night was opened; a source that has changed since is refused."""
