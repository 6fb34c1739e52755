"""The settings of `build-grounded-reports`, checked whole before any work begins."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from difflib import get_close_matches
from pathlib import Path
from typing import Annotated, Any, Self

import yaml
from pydantic import (
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Field,
    SerializeAsAny,
    ValidationError,
    ValidationInfo,
    WithJsonSchema,
    field_validator,
    model_validator,
)

from storage.datasets.declaration import Declaration
from storage.datasets.reader import DatasetError
from storage.datasets.registry import find_declaration, is_file_name
from storage.datasets.selection import RequiredSections
from storage.inputs import home
from storage.records import Assertion
from storage.snapshots import KEPT_VERSIONS
from storage.store import Store, StoreError
from tasks.engines.llm.chat.settings import BatchSettings, ServerSettings, VllmSettings
from tasks.engines.llm.prompts.prompting import prompt_sets
from tasks.engines.llm.settings import LlmSettings
from tasks.engines.registry import EngineSettings, Step, checked_settings, declaration
from taxonomy.targets import Choice

_MESSAGES = {
    "extra_forbidden": "there is no such setting",
    "model_type": "must be a section with settings of its own, by name",
    "tuple_type": "must be a list, such as [a, b]",
}
"""What pydantic says in the words of its own code; its other messages stand as they are."""


class SettingsError(Exception):
    """Settings that cannot be used; the message says which and why."""


_ONE_ENGINE: list[dict[str, Any]] = [
    {"type": "string"},
    {
        "type": "object",
        "properties": {"engine": {"type": "string"}},
        "required": ["engine"],
        "additionalProperties": True,
    },
]
"""An engine's name, or a section with its settings, which the engine's own model checks. The
schema names no engine: one that only a worker has must be allowed where a run is ordered."""

_ENGINE_SCHEMA = {
    "anyOf": [*_ONE_ENGINE, {"type": "array", "items": {"anyOf": _ONE_ENGINE}, "minItems": 1}]
}
"""One engine, or several, of which each is asked for what those before it do not know."""

STEPS: dict[str, Step] = {
    "cleaner": "clean",
    "extractor": "extract",
    "filter": "filter",
    "detector": "detect",
    "segmenter": "segment",
}
"""The settings that choose an engine, and the step that each engine does."""


def _check_engine(given: object, info: ValidationInfo) -> EngineSettings:
    return checked_settings(STEPS[str(info.field_name)], given)


ChosenEngine = Annotated[
    SerializeAsAny[EngineSettings],
    BeforeValidator(_check_engine),
    WithJsonSchema(_ENGINE_SCHEMA),
]
"""The engine that a step uses: `atlas`, or `{engine: atlas, …}`, or a list of such."""


def _engine(name: str, description: str) -> Any:
    return Field(
        default=EngineSettings(engine=name), validate_default=True, description=description
    )


_HEDGES: tuple[Assertion, ...] = ("probable", "possible")
"""The grades that `uncertain` stood for before hedges had grades; settings may still say it."""


class BuildSettings(BaseModel):
    """What to build, from where, into which store, with which engines."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    dataset: str = Field(
        description="the dataset to annotate: its name, or the YAML file that declares it"
    )
    declaration: str | None = Field(
        default=None, description="the YAML file that declares the dataset, if it has no known name"
    )
    source: str | None = Field(
        default=None, description="folder with the dataset's files; fetched when not given"
    )
    store: str = Field(
        default_factory=lambda: str(home() / "store"),
        description="where shards go: a folder, or s3://bucket/prefix",
    )
    keep_versions: Annotated[int, Field(ge=1, strict=True)] = Field(
        default=KEPT_VERSIONS,
        description="versions of the dataset that the store keeps, with the current one",
    )
    shard_size: Annotated[int, Field(ge=1, strict=True)] | None = Field(
        default=None, description="reports per shard; the dataset's own default when not given"
    )
    limit: Annotated[int, Field(ge=1, strict=True)] | None = Field(
        default=None, description="take only the first reports of the dataset"
    )
    require_sections: RequiredSections | None = Field(
        default=None,
        description="sections a report must have: `both`, as the paper, or `any`; what the "
        "dataset's declaration says when not given",
    )
    positive: tuple[Assertion, ...] = Field(
        default=("present", "probable"),
        description="assertions that count as positive, of `present`, `probable`, `possible` and "
        "`absent`; `uncertain` stands for both grades of hedges, `probable` and `possible`",
    )
    taxonomy: Choice = Field(
        default="all", description="targets to name: the paper's, or `all`, with ours beside them"
    )
    taxonomy_version: str | None = Field(
        default=None,
        description="digest of a taxonomy that the store keeps; the one last published there, or "
        "else the packaged one, when not given",
    )
    cleaner: ChosenEngine = _engine("rules", "engine of the step clean")
    extractor: ChosenEngine = _engine("lexicon", "engine of the step extract")
    filter: ChosenEngine = _engine("context", "engine of the step filter")
    llm: LlmSettings | None = Field(
        default=None, description="the model that steps with the engine `llm` ask, and how"
    )
    detector: ChosenEngine = _engine("atlas", "engine of the step detect, for radiographs")
    segmenter: ChosenEngine = _engine("hounsfield", "engine of the step segment, for CT volumes")

    @property
    def asks_language_model(self) -> bool:
        """Whether a step has the engine `llm`."""
        return "llm" in self._text_engine_names

    @property
    def _text_engine_names(self) -> list[str]:
        return [self.cleaner.engine, self.extractor.engine, self.filter.engine]

    @model_validator(mode="before")
    @classmethod
    def _dataset_of_a_file(cls, values: Any) -> Any:
        """Take the name from the file where a dataset is given as the file that declares it."""
        given = values.get("dataset") if isinstance(values, Mapping) else None
        if isinstance(given, str) and is_file_name(given):
            file = Path(given).expanduser().absolute()
            return {**values, "dataset": file.stem, "declaration": str(file)}
        return values

    @model_validator(mode="after")
    def _declared(self) -> Self:
        try:
            declared = self.dataset_declaration()
        except DatasetError as error:
            raise ValueError(str(error)) from error
        known = prompt_sets()
        if declared.prompts is not None and declared.prompts not in known:
            raise ValueError(
                f"{declared.file}: prompts = {declared.prompts!r}: there is no such prompt set: "
                f"choose from {', '.join(known)}"
            )
        return self

    def dataset_declaration(self) -> Declaration:
        """The declaration of the dataset."""
        return find_declaration(self.declaration or self.dataset)

    def required_sections(self) -> RequiredSections:
        """The sections that a report must have to be annotated."""
        return self.require_sections or self.dataset_declaration().sections

    def prompt_set(self) -> str:
        """Whose prompts a language model gets for the dataset's reports."""
        return self.dataset_declaration().prompts or self.dataset

    @field_validator("positive", mode="before")
    @classmethod
    def _graded(cls, value: Any) -> Any:
        if not isinstance(value, list | tuple):
            return value
        return tuple(grade for v in value for grade in (_HEDGES if v == "uncertain" else (v,)))

    @field_validator("positive")
    @classmethod
    def _some_assertion(cls, value: tuple[Assertion, ...]) -> tuple[Assertion, ...]:
        if not value:
            raise ValueError("name at least one assertion, or no phrase is ever kept")
        return tuple(sorted(set(value)))

    @model_validator(mode="after")
    def _llm_where_asked(self) -> Self:
        if self.asks_language_model and self.llm is None:
            raise ValueError("a step has the engine `llm`, but there is no section `llm`")
        whole = self.llm is not None and self.llm.protocol in {"joint", "inline"}
        if whole and self._text_engine_names != ["llm"] * 3:
            raise ValueError(
                "the protocols `joint` and `inline` do all three text steps: set cleaner, "
                "extractor and filter to `llm`"
            )
        return self

    @field_validator("store")
    @classmethod
    def _place(cls, value: str) -> str:
        try:
            return Store(value).root
        except StoreError as error:
            raise ValueError(str(error)) from error

    @field_validator("source")
    @classmethod
    def _existing_folder(cls, value: str | None) -> str | None:
        if value is not None and not (value and Path(value).is_dir()):
            raise ValueError(f"there is no folder {value}")
        return value


def required_inputs(settings: BuildSettings) -> list[str]:
    """The inputs to fetch for a run: the dataset's own, and what the engines are made from."""
    own = () if settings.source else settings.dataset_declaration().inputs
    return list(dict.fromkeys([*own, *inputs_of_engines(settings)]))


def inputs_of_engines(settings: BuildSettings) -> list[str]:
    """The inputs that the chosen engines are made from, such as the atlas's CTs."""
    chosen = (
        declaration(step, member.engine)
        for name, step in STEPS.items()
        for member in getattr(settings, name).members
    )
    return list(dict.fromkeys(name for engine in chosen for name in engine.inputs))


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
        raise SettingsError("; ".join(_sentences(error, values))) from error


def _sentences(error: ValidationError, values: Mapping[str, Any]) -> Iterable[str]:
    for fault in error.errors():
        where = ".".join(str(step) for step in fault["loc"])
        if fault["type"] == "missing":
            yield f"{where} is missing"
            continue
        # A store's own message names it, without the key that a URI may hold.
        if isinstance(fault["input"], str | int | float) and fault["loc"] != ("store",):
            where += f" = {fault['input']!r}"
        message = _MESSAGES.get(fault["type"]) or fault["msg"].removeprefix("Value error, ")
        message = message[0].lower() + message[1:]
        if fault["type"] == "extra_forbidden":
            message += _meant(fault["loc"], values)
        yield f"{where}: {message}" if where else message


def _meant(where: Sequence[int | str], values: Mapping[str, Any]) -> str:
    near = get_close_matches(str(where[-1]), _names_beside(where, values), 1)
    return "".join(f", perhaps `{name}` was meant" for name in near)


def _names_beside(where: Sequence[int | str], values: Mapping[str, Any]) -> set[str]:
    """The settings that there are where one was not known."""
    if len(where) == 2 and where[0] in STEPS:
        section = str(where[0])
        return set(declaration(STEPS[section], values[section]["engine"]).settings.model_fields)
    sections = (BuildSettings, LlmSettings, ServerSettings, VllmSettings, BatchSettings)
    return {name for section in sections for name in section.model_fields}
