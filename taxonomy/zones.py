"""Zones of a lung: words for them and the part that each means, read from `zones.yaml`."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from functools import cache
from pathlib import Path
from typing import Literal

from pydantic import BaseModel, ConfigDict, Field

from taxonomy.words import load_yaml

_PACKAGED = Path(__file__).with_suffix(".yaml")

Share = tuple[float, float]
"""From and to, both included, as shares of a length."""

Axis = Literal["level", "breadth", "depth"]
Side = Literal["right", "left"]


class _Model(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)


class FilmRegion(_Model):
    """A part of a lung field: height 0 apex to 1 base, width 0 lateral wall to 1 mediastinum."""

    height: Share | None = None
    width: Share | None = None


class VolumeRegion(_Model):
    """A part of a lung on a CT; what is not given is not restricted.

    height: 0 apex to 1 base; width: 0 lateral wall to 1 mediastinum; depth: 0 back to 1 front.
    radius: 0 at the middle of the medial edge to 1 at the chest wall, in the axial slice.
    fissure: before or behind the oblique fissure.
    """

    height: Share | None = None
    width: Share | None = None
    depth: Share | None = None
    radius: Share | None = None
    fissure: Literal["before", "behind"] | None = None


class Zone(_Model):
    """A zone, as `zones.yaml` explains it."""

    words: tuple[str, ...] = ()
    nouns: tuple[str, ...] = ()
    both_sides: tuple[str, ...] = ()
    side: Side | None = None
    axis: Axis
    hilum: bool = False
    film: FilmRegion | None
    volume: tuple[VolumeRegion, ...] = Field(min_length=1)


@cache
def load_zones() -> Mapping[str, Zone]:
    """The packaged zones, by name."""
    return {name: Zone.model_validate(entry) for name, entry in load_yaml(_PACKAGED).items()}


def zones_digest(*parts: str) -> str:
    """SHA-256 of what the zones say under these keys, for the fingerprints of their readers."""
    content = [[name, zone.model_dump(include=set(parts))] for name, zone in load_zones().items()]
    return hashlib.sha256(json.dumps(content, sort_keys=True).encode()).hexdigest()
