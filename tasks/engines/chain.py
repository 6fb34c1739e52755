"""What chains of detectors and chains of segmenters share: settings, names, who is asked next."""

from __future__ import annotations

import json
from collections.abc import Sequence
from typing import ClassVar

from pydantic import Field, SerializeAsAny, field_validator

from tasks.engines.protocols import Engine, Fingerprint, Ungrounded
from tasks.engines.registry import EngineSettings, Step, checked_settings

NOT_KNOWN = frozenset({"target_not_supported", "zone_not_supported", "view_not_supported"})
"""Reasons that say nothing of the image: another engine may know the target, zone or view."""


class ChainSettings(EngineSettings):
    """The engines of a chain, first asked first; each a name or a section, as where it is alone."""

    STEP: ClassVar[Step]

    engines: tuple[SerializeAsAny[EngineSettings], ...] = Field(
        min_length=1, description="the engines, in the order in which they are asked"
    )

    @field_validator("engines", mode="before")
    @classmethod
    def _each_checked(cls, given: object) -> object:
        if not isinstance(given, list | tuple):
            return given
        return tuple(checked_settings(cls.STEP, one) for one in given)

    @property
    def members(self) -> tuple[EngineSettings, ...]:
        """The settings of the engines that do the work."""
        return tuple(member for one in self.engines for member in one.members)


def label(engine: Engine) -> str:
    """Name and version, as the records that the engine makes have them."""
    return "{name} {version}".format(**engine.fingerprint)


def chain_fingerprint(engines: Sequence[Engine]) -> Fingerprint:
    """The fingerprints of all engines, in their order."""
    return {
        "name": "chain",
        "version": ", ".join(label(engine) for engine in engines),
        "engines": json.dumps([dict(engine.fingerprint) for engine in engines]),
    }


def chain_concurrency(engines: Sequence[Engine]) -> int | None:
    """The shards that the engine that takes most takes; None if all work on this machine's CPU."""
    taken = [count for engine in engines if (count := getattr(engine, "concurrency", None))]
    return max(taken, default=None)


def may_be_known_elsewhere(answer: object) -> bool:
    """Whether the next engine is to be asked."""
    return isinstance(answer, Ungrounded) and answer.reason in NOT_KNOWN
