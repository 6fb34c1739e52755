"""The placement table `placement.yaml`: the targets that the atlas can place, and how."""

from __future__ import annotations

import re
from collections.abc import Iterator
from functools import cache
from pathlib import Path
from typing import Any, Literal

import yaml
from pydantic import BaseModel, ConfigDict, Field

from tasks.engines.detection.atlas.lung_fields.outlines import SIDES, Share, Side
from taxonomy.zones import Zone, load_zones

Evidence = Literal["measured", "outlined", "zone", "presumed"]
"""What a box rests on; the words are explained in `placement.yaml` under `certainty`."""

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


class PlacementRule(BaseModel):
    """How one target is placed; the keys are explained in `placement.yaml`.

    side: the side in the target's name.
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
    """The whole table.

    zones: those that a frontal film can show.
    """

    model_config = ConfigDict(extra="forbid", frozen=True)

    certainty: dict[Evidence, float] = Field(min_length=4)
    zones: dict[str, Zone]
    rules: dict[str, PlacementRule]


TABLE = Path(__file__).with_name("placement.yaml")


@cache
def load_placement() -> Placement:
    """The packaged table, `{side}` and `{n}` written out, with the taxonomy's zones."""
    raw = yaml.safe_load(TABLE.read_text(encoding="utf-8"))
    entries = raw.pop("anatomy") | raw.pop("findings")
    rules = {name: rule for key, entry in entries.items() for name, rule in _expand(key, entry)}
    zones = {name: zone for name, zone in load_zones().items() if zone.film is not None}
    return Placement.model_validate(raw | {"rules": rules, "zones": zones})


def _expand(key: str, entry: dict[str, Any]) -> Iterator[tuple[str, dict[str, Any]]]:
    """The entries that one line of the table stands for: one per side and number in its name."""
    numbers = entry.get("numbers", [None])
    rest = {name: value for name, value in entry.items() if name != "numbers"}
    for side in SIDES if "{side}" in key else (None,):
        for number in numbers if "{n}" in key else (None,):
            groups = [
                group
                for item in rest.get("structures", [])
                for group in _structures(item, side, [number] if number else numbers)
            ]
            # "right lung middle lobe" has its side in its name, without `{side}`.
            stated = re.match("right|left", key)
            name = key.format(side=side, n=number)
            yield name, rest | {"structures": groups, "side": side or (stated and stated.group())}


def _structures(
    item: str | list[str], side: Side | None, numbers: list[int | None]
) -> Iterator[tuple[str, ...]]:
    """The groups of structures that share one box."""
    patterns = [item] if isinstance(item, str) else item
    # A target without a side, such as "rib", has its structures on both.
    bilateral = any("{side}" in pattern for pattern in patterns) and side is None
    for one_side in SIDES if bilateral else (side,):
        yield tuple(
            pattern.format(side=one_side, n=number)
            for pattern in patterns
            for number in (numbers if "{n}" in pattern else [None])
        )
