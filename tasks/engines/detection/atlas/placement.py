"""The placement table: what the atlas can place, read from `placement.yaml` and checked."""

from __future__ import annotations

import re
from collections.abc import Iterator
from functools import cache
from pathlib import Path
from typing import Any, Literal

import yaml
from pydantic import BaseModel, ConfigDict, Field

from tasks.engines.detection.atlas.measure import Share
from tasks.engines.detection.atlas.outlines import SIDES, Side

Kind = Literal["measured", "outlined", "zone", "presumed"]
RuleName = Literal[
    "structures",
    "lung",
    "zone",
    "beside",
    "heart",
    "retrocardiac",
    "mediastinum",
    "effusion",
    "nodules",
]


class Zone(BaseModel):
    """A part of a lung field, as shares of its height and width."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    height: Share | None = None
    width: Share | None = None
    side: Side | None = None


class Rule(BaseModel):
    """How one target is placed; the words are explained in `placement.yaml`.

    side: the side that the target's own name gives.
    structures: one tuple of atlas structures per box.
    """

    model_config = ConfigDict(extra="forbid", frozen=True)

    rule: RuleName = "structures"
    structures: tuple[tuple[str, ...], ...] = ()
    borders: Literal["aortic", "pleural"] | None = None
    default: tuple[str, ...] = ()
    sides: Literal["stated", "both", "measured"] = "both"
    needs_zone: bool = False
    enlarged: bool = False
    height: Share = (0.0, 1.0)
    width: Share = (0.0, 1.0)
    side: Side | None = None


class Placement(BaseModel):
    """The whole table."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    certainty: dict[Kind, float] = Field(min_length=4)
    zones: dict[str, Zone]
    rules: dict[str, Rule]


@cache
def load_placement() -> Placement:
    """The table that comes with the package, `{side}` and `{n}` written out."""
    raw = yaml.safe_load(Path(__file__).with_name("placement.yaml").read_text())
    entries = raw.pop("anatomy") | raw.pop("findings")
    rules = {name: rule for key, entry in entries.items() for name, rule in _expand(key, entry)}
    return Placement.model_validate(raw | {"rules": rules})


def _expand(key: str, entry: dict[str, Any]) -> Iterator[tuple[str, dict[str, Any]]]:
    """Entries of a table line, one for every side and number in its name."""
    numbers = entry.get("numbers", [None])
    rest = {name: value for name, value in entry.items() if name != "numbers"}
    for side in SIDES if "{side}" in key else (None,):
        for number in numbers if "{n}" in key else (None,):
            groups = [
                group
                for item in rest.get("structures", [])
                for group in _structures(item, side, [number] if number else numbers)
            ]
            own_side = side or re.match("(?:right|left)", key)
            named = own_side if isinstance(own_side, str) else own_side and own_side.group()
            name = key.format(side=side, n=number)
            yield name, rest | {"structures": groups, "side": named}


def _structures(
    item: str | list[str], side: Side | None, numbers: list[int | None]
) -> Iterator[tuple[str, ...]]:
    """Groups of structures that make one box each."""
    patterns = [item] if isinstance(item, str) else item
    bilateral = any("{side}" in pattern for pattern in patterns) and side is None
    for one_side in SIDES if bilateral else (side,):
        yield tuple(
            pattern.format(side=one_side, n=number)
            for pattern in patterns
            for number in (numbers if "{n}" in pattern else [None])
        )
