"""The reason codes of `reasons.yaml`: what each means, where it occurs, whether it may pass."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from types import MappingProxyType

import yaml

_ENGINES_OWN = re.compile(r"[\w.-]+:[a-z0-9_]+")
"""`<engine>:<code>`: a code that an engine of another package makes up."""


class UnknownReasonError(ValueError):
    """A reason code that `reasons.yaml` does not declare."""


@dataclass(frozen=True, slots=True)
class Reason:
    """A reason code.

    meaning: one sentence for a person.
    stages: where it occurs: stages of the pipeline, or `gallery`.
    may_succeed_later: whether the same record may go through in a later run, unchanged.
    """

    code: str
    meaning: str
    stages: tuple[str, ...]
    may_succeed_later: bool = False


@cache
def reasons() -> Mapping[str, Reason]:
    """Every reason by its code."""
    declared = yaml.safe_load(Path(__file__).with_suffix(".yaml").read_text(encoding="utf-8"))
    return MappingProxyType(
        {
            code: Reason(
                code,
                entry["meaning"],
                tuple(entry["stages"]),
                entry.get("may_succeed_later", False),
            )
            for code, entry in declared.items()
        }
    )


def require_known(code: str) -> str:
    """The code, if this repository declares it or it is an engine's own, such as `toy:no_lesion`.

    Engines of other packages cannot add to `reasons.yaml`; the prefix keeps their codes apart.

    Raises:
        UnknownReasonError: if it is neither.
    """
    if code in reasons() or _ENGINES_OWN.fullmatch(code):
        return code
    raise UnknownReasonError(
        f"the reason code {code!r} is not declared: add it to storage/reasons.yaml, or, in an "
        "engine of another package, put the engine's name before it, as in `toy:no_lesion`"
    )


def may_succeed_later(code: str) -> bool:
    """Whether a record rejected for this reason may go through in a later run, unchanged."""
    known = reasons().get(code)
    return known is not None and known.may_succeed_later


def explain(code: str) -> str:
    """A reason in words for a person; other codes are shown as they are."""
    known = reasons().get(code)
    return known.meaning if known else code
