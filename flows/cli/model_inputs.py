"""What `plan` and `batch` ask a language model about: the studies of a build."""

from __future__ import annotations

from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING

from flows.cli.options import notes

if TYPE_CHECKING:
    import pyarrow as pa

    from tasks.engines.llm.settings import LlmSettings
    from tasks.pipeline.settings import BuildSettings


def language_model(settings: BuildSettings) -> LlmSettings:
    """The section `llm` of the settings.

    Raises:
        SettingsError: if no step asks a language model.
    """
    from tasks.pipeline.settings import SettingsError

    if settings.llm is None or not settings.asks_language_model:
        raise SettingsError(
            "no text step asks a language model: the configuration needs a section `llm`, and "
            "cleaner, extractor or filter set to `llm`"
        )
    return settings.llm


def studies_of(settings: BuildSettings) -> list[pa.Table]:
    """The `studies` of every part that a build would make."""
    from storage.inputs import fetch
    from tasks.ingest import ingest_studies
    from tasks.pipeline.parts import PartRecords
    from tasks.pipeline.settings import required_inputs

    fetch(required_inputs(settings), notes.print)
    declaration = settings.dataset_declaration()
    reader = declaration.open(Path(settings.source) if settings.source else None)
    records = islice(reader.records(), settings.limit)
    parts = PartRecords(settings.dataset, records, settings.shard_size or declaration.shard_size)
    return [ingest_studies(part, reader, own).rows for part, own in parts.items()]
