"""The settings of `build-grounded-reports`, checked whole before any work begins."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from difflib import get_close_matches
from pathlib import Path
from typing import Annotated, Any, Literal, Self

import yaml
from pydantic import (
    BaseModel,
    ConfigDict,
    Field,
    ValidationError,
    field_validator,
    model_validator,
)

from storage.datasets import ARTEFACTS
from storage.inputs import home
from storage.records import Assertion
from tasks.clean import RequiredSections
from tasks.engines.llm.chat.settings import BatchSettings, ServerSettings, VllmSettings

ProtocolName = Literal["spans", "joint", "inline", "cascade"]
"""`spans`, the default; `joint`, all steps in one request; `inline`, the paper's procedure;
`cascade`, `spans` with rules that decide the clear cases of the filter step."""

DatasetName = Literal["openi", "showcase"]


_MESSAGES = {
    "extra_forbidden": "there is no such setting",
    "model_type": "must be a section with settings of its own, by name",
    "tuple_type": "must be a list, such as [a, b]",
}
"""What pydantic says in the words of its own code; its other messages stand as they are."""


class SettingsError(Exception):
    """Settings that cannot be used; the message says which and why."""


class LlmSettings(BaseModel):
    """A language model for the text steps: where it runs and by which protocol it is asked."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    protocol: ProtocolName = "spans"
    server: ServerSettings | None = Field(default=None, description="OpenAI-compatible servers")
    vllm: VllmSettings | None = Field(default=None, description="vLLM in this process")
    batch: BatchSettings | None = Field(default=None, description="batch files of vLLM")

    @model_validator(mode="after")
    def _one_place(self) -> Self:
        if sum(place is not None for place in (self.server, self.vllm, self.batch)) != 1:
            raise ValueError("give one of `server`, `vllm` and `batch`: where the model runs")
        return self


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
    cleaner: Literal["rules", "llm"] = "rules"
    extractor: Literal["lexicon", "llm"] = "lexicon"
    filter: Literal["context", "llm"] = "context"
    llm: LlmSettings | None = Field(
        default=None, description="the model that steps with the engine `llm` ask, and how"
    )
    detector: Literal["atlas"] = "atlas"
    segmenter: Literal["hounsfield"] = "hounsfield"

    @field_validator("positive")
    @classmethod
    def _some_assertion(cls, value: tuple[Assertion, ...]) -> tuple[Assertion, ...]:
        if not value:
            raise ValueError("name at least one assertion, or no phrase is ever kept")
        return tuple(sorted(set(value)))

    @model_validator(mode="after")
    def _llm_where_asked(self) -> Self:
        chosen = [self.cleaner, self.extractor, self.filter]
        if "llm" in chosen and self.llm is None:
            raise ValueError("a step has the engine `llm`, but there is no section `llm`")
        whole = self.llm is not None and self.llm.protocol in {"joint", "inline"}
        if whole and chosen != ["llm"] * 3:
            raise ValueError(
                "the protocols `joint` and `inline` do all three text steps: set cleaner, "
                "extractor and filter to `llm`"
            )
        return self

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


def read_settings(file: Path, given: Mapping[str, Any]) -> BuildSettings:
    """Settings from a YAML file, with what was given by hand on top.

    Raises:
        SettingsError: if the file is not YAML with settings, naming each fault.
    """
    try:
        raw = yaml.safe_load(file.read_text(encoding="utf-8"))
    except OSError as error:
        raise SettingsError(f"{file} cannot be read: {error.strerror}") from error
    except (UnicodeDecodeError, yaml.YAMLError) as error:
        raise SettingsError(f"{file} is not YAML ({_fault(error)})") from error
    if not isinstance(raw, dict):
        raise SettingsError(f"{file} must hold settings by name, such as `cleaner: llm`")
    return make_settings(raw | dict(given))


def _fault(error: UnicodeDecodeError | yaml.YAMLError) -> str:
    mark = getattr(error, "problem_mark", None)
    return f"line {mark.line + 1}: {getattr(error, 'problem', '')}" if mark else str(error)


def make_settings(values: Mapping[str, Any]) -> BuildSettings:
    """Checked settings.

    Raises:
        SettingsError: one sentence per fault.
    """
    try:
        return BuildSettings.model_validate(values)
    except ValidationError as error:
        raise SettingsError("; ".join(_sentences(error))) from error


def _sentences(error: ValidationError) -> Iterable[str]:
    for fault in error.errors():
        where = ".".join(str(step) for step in fault["loc"])
        if fault["type"] == "missing":
            yield f"{where} is missing"
            continue
        if isinstance(fault["input"], str | int | float):
            where += f" = {fault['input']!r}"
        message = _MESSAGES.get(fault["type"]) or fault["msg"].removeprefix("Value error, ")
        message = message[0].lower() + message[1:]
        if fault["type"] == "extra_forbidden":
            message += _meant(str(fault["loc"][-1]))
        yield f"{where}: {message}" if where else message


def _meant(name: str) -> str:
    sections = (BuildSettings, LlmSettings, ServerSettings, VllmSettings, BatchSettings)
    names = {name for section in sections for name in section.model_fields}
    return "".join(f", perhaps `{near}` was meant" for near in get_close_matches(name, names, 1))
