"""Which engines there are: one module each, found by its place, imported when it is chosen.

**In this repository**: a module (or package) in the folder of its step, whose name is the engine's
name and which declares `ENGINE`. `tasks/engines/detection/middle.py` is the detector `middle`:

    ENGINE = EngineDeclaration(Settings, lambda settings, context: MiddleDetector(settings))

Nothing else is edited. Modules whose name begins with `_` are not engines.

**In another package**: the same module, and an entry point of the group `vividmed.engines.<step>`
(steps: clean, extract, filter, detect, segment) in that package's pyproject.toml:

    [project.entry-points."vividmed.engines.detect"]
    middle = "vividmed_middle:ENGINE"

A configuration then reads `detector: middle` or `detector: {engine: middle, share: 0.3}`.
`docs/extending.md` has the whole of it.

Names are listed without importing an engine. A module that declares an engine is imported to check
settings, before any work: PyTorch and the like are imported by the functions that need them.
"""

from __future__ import annotations

import json
import logging
import pkgutil
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from difflib import get_close_matches
from functools import cache
from importlib import import_module
from importlib.metadata import EntryPoint, entry_points
from typing import TYPE_CHECKING, Any, Generic, Literal, TypeVar

from pydantic import BaseModel, ConfigDict, Field, ValidationError

if TYPE_CHECKING:
    from tasks.engines.protocols import Engine, TextEngines
    from taxonomy.targets import Taxonomy

Step = Literal["clean", "extract", "filter", "detect", "segment"]

FOLDERS: dict[Step, str] = {
    "clean": f"{__package__}.cleaning",
    "extract": f"{__package__}.extraction",
    "filter": f"{__package__}.filtering",
    "detect": f"{__package__}.detection",
    "segment": f"{__package__}.segmentation",
}
"""The package that holds the engines of each step."""

METHODS: dict[Step, str] = {
    "clean": "clean",
    "extract": "extract",
    "filter": "classify",
    "detect": "detect",
    "segment": "segment",
}
"""The method that an engine of each step has; its signature is in `tasks.engines.protocols`."""

CHAIN = "chain"
"""The engine that a list of engines stands for."""

_log = logging.getLogger(__name__)


class EngineChoiceError(ValueError):
    """An engine that cannot be used; the message says which and what to do."""


class EngineSettings(BaseModel):
    """The settings of an engine; subclass it for those that the engine has of its own.

    Settings are keys of caches: give fields hashable types, such as tuples, not lists.
    """

    model_config = ConfigDict(extra="forbid", frozen=True)

    engine: str = Field(description="the engine's name")

    @property
    def members(self) -> tuple[EngineSettings, ...]:
        """The settings of the engines that do the work: those of a chain, or these."""
        return (self,)


@dataclass(frozen=True)
class EngineContext:
    """What a run tells its engines.

    taxonomy: the targets that may be named.
    dataset: the data set's name.
    language_model: the text steps done by the run's language model; None without one.
    """

    taxonomy: Taxonomy
    dataset: str
    language_model: TextEngines | None = None

    def require_language_model(self) -> TextEngines:
        """The text steps done by the run's language model.

        Raises:
            EngineChoiceError: if the run has none.
        """
        if self.language_model is None:
            raise EngineChoiceError(
                "a step has the engine `llm`, but there is no section `llm`: add one, see configs/"
            )
        return self.language_model


SettingsT = TypeVar("SettingsT", bound=EngineSettings)


@dataclass(frozen=True)
class EngineDeclaration(Generic[SettingsT]):
    """What a module says of its engine.

    settings: the model that checks the engine's settings; `EngineSettings` if it has none.
    make: gives the engine; no image or model is loaded yet.
    inputs: names in `storage/inputs.yaml` that are fetched before a run, such as an atlas's CT.
    """

    settings: type[SettingsT]
    make: Callable[[SettingsT, EngineContext], Engine]
    inputs: tuple[str, ...] = ()


def engine_names(step: Step) -> list[str]:
    """The names of a step's engines, in order of the alphabet; none of them is imported."""
    return sorted(_offers(step))


@cache
def declaration(step: Step, name: str) -> EngineDeclaration[Any]:
    """What the engine's module declares.

    Raises:
        EngineChoiceError: if there is no such engine, there are two, or its module cannot be
            imported, whatever it raises, or declares something else.
    """
    offers = _offers(step).get(name, [])
    if not offers:
        raise EngineChoiceError(_no_such_engine(step, name))
    if len(offers) > 1:
        places = " and ".join(_home(offer) for offer in offers)
        raise EngineChoiceError(f"the engine `{name}` is offered by {places}: uninstall one")
    [offer] = offers
    named = _named(step, name)
    try:
        declared = offer.load()
    # Another package's module may raise anything; SystemExit comes of a script that runs when read.
    except (Exception, SystemExit) as error:
        raise EngineChoiceError(f"{named} cannot be imported: {_told(error)}") from error
    if not isinstance(declared, EngineDeclaration):
        raise EngineChoiceError(f"{named}: {offer.value} is no EngineDeclaration")
    settings = declared.settings
    if not isinstance(settings, type) or not issubclass(settings, EngineSettings):
        raise EngineChoiceError(f"{named}: its settings are no subclass of EngineSettings")
    return declared


def checked_settings(step: Step, given: object) -> EngineSettings:
    """The settings of the engine that a configuration chooses, checked by the engine's own model.

    Args:
        step: whose engine it is.
        given: the engine's name, or a mapping with `engine` and its settings, or settings; or a
            list of them, which are asked one after the other.

    Raises:
        EngineChoiceError: if the engine cannot be used.
        pydantic.ValidationError: if a setting is wrong.
    """
    values = given.model_dump() if isinstance(given, EngineSettings) else given
    if isinstance(values, str):
        values = {"engine": values}
    if isinstance(values, list | tuple):
        values = {"engine": CHAIN, "engines": values}
    if not isinstance(values, dict) or not isinstance(values.get("engine"), str):
        names = ", ".join(engine_names(step))
        raise EngineChoiceError(
            f"must be an engine's name, or a section with `engine` and its settings; the engines "
            f"of the step {step} are: {names}"
        )
    name = values["engine"]
    settings: type[EngineSettings] = declaration(step, name).settings
    try:
        checked = settings.model_validate(values)
    except ValidationError:
        raise
    except Exception as error:  # a validator of another package may raise anything
        raise EngineChoiceError(
            f"the settings of {_named(step, name)} cannot be checked: {_told(error)}"
        ) from error
    if unhashable := [field for field, value in checked if not _is_hashable(value)]:
        raise EngineChoiceError(
            f"the settings of {_named(step, name)} cannot be keys, because of "
            f"{', '.join(unhashable)}: give its fields hashable types, such as tuples, not lists"
        )
    return checked


def make_engine(step: Step, settings: EngineSettings, context: EngineContext) -> Engine:
    """The engine that the settings name.

    Raises:
        EngineChoiceError: if it cannot be made, is no engine of this step, or its fingerprint or
            its concurrency is none.
    """
    named = _named(step, settings.engine)
    try:
        engine = declaration(step, settings.engine).make(settings, context)
        fingerprint = getattr(engine, "fingerprint", None)
        concurrency = getattr(engine, "concurrency", None)
    except EngineChoiceError:
        raise
    except Exception as error:  # an engine of another package may raise anything
        raise EngineChoiceError(f"{named} cannot be made: {_told(error)}") from error
    if (
        not hasattr(engine, METHODS[step])
        or not isinstance(fingerprint, Mapping)
        or not {"name", "version"} <= set(fingerprint)
    ):
        raise EngineChoiceError(
            f"{named} is no engine of the step {step}: it needs a method "
            f"`{METHODS[step]}` and a fingerprint with `name` and `version`"
        )
    for key, value in fingerprint.items():
        if not isinstance(key, str) or not _is_json(value):
            raise EngineChoiceError(
                f"{named} has in its fingerprint {key!r}: {value!r}, which JSON cannot hold: give "
                "strings, and for a file the digest of its content"
            )
    if concurrency is not None and (not isinstance(concurrency, int) or concurrency < 1):
        raise EngineChoiceError(
            f"{named} has the concurrency {concurrency!r}: it must be the number of shards that it "
            "takes at once, at least 1"
        )
    return engine


@cache
def _offers(step: Step) -> dict[str, list[EntryPoint]]:
    """Those of this repository and those of other packages, by name."""
    group = f"vividmed.engines.{step}"
    folder = FOLDERS[step]
    offers: dict[str, list[EntryPoint]] = {}
    for module in pkgutil.iter_modules(import_module(folder).__path__):
        if not module.name.startswith("_"):
            own = EntryPoint(module.name, f"{folder}.{module.name}:ENGINE", group)
            offers.setdefault(module.name, []).append(own)
    for entry in entry_points(group=group):
        offers.setdefault(entry.name, []).append(entry)
    return offers


def _no_such_engine(step: Step, name: str) -> str:
    names = engine_names(step)
    meant = "".join(f", perhaps `{near}` was meant" for near in get_close_matches(name, names, 1))
    installed = ", ".join(names)
    return f"the step {step} has no engine `{name}`{meant}; those installed are: {installed}"


def _named(step: Step, name: str) -> str:
    """The engine and who offers it, for people."""
    return f"the engine `{name}`" + "".join(
        f" of {_home(offer)}" for offer in _offers(step).get(name, ())
    )


def _home(offer: EntryPoint) -> str:
    dist = offer.dist
    return f"the package {dist.name}" if dist else offer.module


def _told(error: BaseException) -> str:
    """The error in one line; its trace goes to the log, for who wrote the engine."""
    _log.debug("an engine failed", exc_info=error)
    message = " ".join(str(error).split())
    kind = "" if isinstance(error, ImportError) and message else f"{type(error).__name__}: "
    return f"{kind}{message}".rstrip(": ")


def _is_hashable(value: object) -> bool:
    try:
        hash(value)
    except TypeError:
        return False
    return True


def _is_json(value: object) -> bool:
    try:
        json.dumps(value, allow_nan=False)
    except (TypeError, ValueError, RecursionError):
        return False
    return True
