"""From the targets of the taxonomy to what an engine is asked for: its classes, or words."""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Literal, Protocol

import yaml

from storage.records import Site
from tasks.engines.registry import EngineChoiceError

Side = Literal["left", "right"]

SIDES: tuple[Side, Side] = ("left", "right")

TARGETS = Path(__file__).with_name("targets")
"""The folder with one file of targets an engine, beside what the taxonomy holds."""

_RANGE = re.compile(r"\{(\d+)-(\d+)\}")
"""`rib_left_{1-12}` stands for twelve classes."""


@dataclass(frozen=True, slots=True)
class Question:
    """What an engine is asked for at a site.

    prompts: classes or words; the answer is all that is found for any of them.
    side: of what is found, what lies on this side of the patient counts; None: all of it.
    """

    prompts: tuple[str, ...]
    side: Side | None = None


class Vocabulary(Protocol):
    """What an engine knows."""

    @property
    def digest(self) -> str:
        """Changes when any question changes."""
        ...

    def question(self, site: Site) -> Question | None:
        """What to ask for at a site; None if the engine does not know the target."""
        ...


class Classes:
    """An engine with fixed classes, such as those that it was trained on.

    A side that the report states chooses the class of that side, where there is one
    (`left kidney`); a target without a class of its own is both sides together, where the engine
    has both.
    """

    def __init__(self, classes: Mapping[str, tuple[str, ...]]) -> None:
        """Take the classes of each target, which together are the target."""
        self._classes = dict(classes)

    @property
    def digest(self) -> str:
        """SHA-256 of the classes by target."""
        content = json.dumps(self._classes, sort_keys=True)
        return hashlib.sha256(content.encode()).hexdigest()

    @property
    def targets(self) -> frozenset[str]:
        """The targets with a class of their own."""
        return frozenset(self._classes)

    def question(self, site: Site) -> Question | None:
        """The classes of the target and side."""
        side = _side(site)
        if side and (sided := self._classes.get(f"{side} {site.target}")):
            return Question(sided)
        whole = self._classes.get(site.target)
        if whole is None:
            halves = [self._classes.get(f"{one} {site.target}", ()) for one in SIDES]
            whole = (*halves[0], *halves[1]) if all(halves) else None
        return None if whole is None else Question(whole, side)


class FreeText:
    """An engine that takes words: a target, with the side and the zones that the report states."""

    digest = "words: zones, side, target"

    def question(self, site: Site) -> Question:
        """Such as `left pleural effusion` or `upper right lung nodule`."""
        words = [*(zone.replace("_", " ") for zone in site.modifiers.zones)]
        if side := _side(site):
            words.append(side)
        return Question((" ".join([*words, site.target]),))


def read_classes(file: Path) -> dict[str, tuple[str, ...]]:
    """Classes by target, of a YAML file: `heart: heart`, `lung: [lung_left, lung_right]`.

    `{side}` in a target and its classes stands for left and for right; `{1-12}` in a class for
    twelve of them.

    Raises:
        EngineChoiceError: if the file is none of this kind.
    """
    try:
        loaded = yaml.safe_load(file.read_text(encoding="utf-8"))
    except (OSError, UnicodeDecodeError, yaml.YAMLError) as error:
        raise EngineChoiceError(f"{file} cannot be read as YAML: {error}") from error
    if not isinstance(loaded, dict):
        raise EngineChoiceError(f"{file} must give classes by target, such as `heart: heart`")
    classes: dict[str, tuple[str, ...]] = {}
    for target, given in loaded.items():
        names = [str(name) for name in (given if isinstance(given, list) else [given])]
        for side in SIDES if "{side}" in target else ("",):
            sided = [name.replace("{side}", side) for name in names]
            classes[target.replace("{side}", side)] = tuple(
                one for name in sided for one in _numbered(name)
            )
    return classes


def _numbered(name: str) -> Iterator[str]:
    found = _RANGE.search(name)
    if found is None:
        yield name
        return
    for number in range(int(found[1]), int(found[2]) + 1):
        yield from _numbered(name.replace(found[0], str(number), 1))


def _side(site: Site) -> Side | None:
    """The one side that the report states; None of a target whose name has a side."""
    side = site.modifiers.laterality
    if side == "bilateral" or side is None or site.target.startswith(SIDES):
        return None
    return side
