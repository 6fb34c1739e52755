"""The settings of `build-grounded-reports`, checked whole before any work begins."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Literal

from pydantic import BaseModel, ConfigDict, Field, field_validator

from storage.datasets import ARTEFACTS
from storage.inputs import home
from tasks.clean import RequiredSections
from tasks.engines import Assertion

DatasetName = Literal["openi", "showcase"]


class SettingsError(Exception):
    """Settings that cannot be used; the message says which and why."""


class BuildSettings(BaseModel):
    """What to build, from where, into which store, with which engines."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    dataset: DatasetName = Field(description="the dataset to annotate")
    source: str | None = Field(
        default=None, description="folder with the dataset's files; fetched when not given"
    )
    store: str = Field(
        default_factory=lambda: str(home() / "store"),
        description="where shards go: a folder, or s3://bucket/prefix",
    )
    shard_size: Annotated[int, Field(ge=1)] | None = Field(
        default=None, description="reports per shard; the dataset's own default when not given"
    )
    limit: Annotated[int, Field(ge=1)] | None = Field(
        default=None, description="take only the first reports of the dataset"
    )
    require_sections: RequiredSections = Field(
        default="both", description="sections a report must have: `both`, as the paper, or `any`"
    )
    positive: tuple[Assertion, ...] = Field(
        default=("present",),
        description="assertions that count as positive; add `uncertain` to keep hedged phrases",
    )
    cleaner: Literal["rules"] = "rules"
    extractor: Literal["lexicon"] = "lexicon"
    filter: Literal["context"] = "context"
    detector: Literal["atlas"] = "atlas"
    segmenter: Literal["hounsfield"] = "hounsfield"

    @field_validator("positive")
    @classmethod
    def _some_assertion(cls, value: tuple[Assertion, ...]) -> tuple[Assertion, ...]:
        if not value:
            raise ValueError("name at least one assertion, or no phrase is ever kept")
        return tuple(sorted(set(value)))

    @field_validator("source")
    @classmethod
    def _existing_folder(cls, value: str | None) -> str | None:
        if value is not None and not Path(value).is_dir():
            raise ValueError(f"there is no folder {value}")
        return value


def required_inputs(settings: BuildSettings) -> list[str]:
    """The inputs to fetch for a run: the dataset's own, and what the engines are made from."""
    own = () if settings.source else ARTEFACTS[settings.dataset]
    atlas = ("chest_ct",) if settings.detector == "atlas" else ()
    return list(dict.fromkeys([*own, *atlas]))
