"""Try damaged inputs, and count how each ends.

An input is refused with one of the project's own errors, or accepted, and then what was read of
it keeps what its kind promises. All else is wrong: any other error, a broken promise, much memory.
"""

import os
import sys
import traceback
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from textwrap import shorten
from typing import Any
from unittest.mock import patch

from hypothesis import HealthCheck, Phase, given, seed, settings
from hypothesis.strategies import SearchStrategy

from storage.archives import ArchiveError
from storage.datasets.reader import DatasetError
from storage.images.limits import image_limits
from storage.images.types import ImageError
from storage.masks import MaskError
from storage.reasons import require_known
from storage.store import StoreError

OWN_ERRORS = (ArchiveError, DatasetError, ImageError, MaskError, StoreError)

_MOST_VOXELS = 1_000_000
_LIMITS = dict.fromkeys(("VIVIDMED_MAX_PIXELS", "VIVIDMED_MAX_VOXELS"), str(_MOST_VOXELS))
"""The inputs are small; what goes beyond these limits was not held against them."""

_MOST_BYTES = 256 << 20
"""Of memory that one input may take. Within the limits an image takes some 20 MB; libraries that
are imported for the first one take the rest."""


class RefusedError(Exception):
    """An input that is refused without an error, such as a manifest that counts for none."""


@dataclass(frozen=True)
class Kind:
    """A kind of input.

    name: what a person calls it.
    inputs: the damaged inputs.
    outcome: reads one, in a folder of its own; gives the reason of a rejected record, None if the
        input is accepted; raises one of `OWN_ERRORS` or `RefusedError` if it is refused, anything
        else if it is wrong.
    """

    name: str
    inputs: Callable[[], SearchStrategy[Any]]
    outcome: Callable[[Any, Path], str | None]


@dataclass
class Tally:
    """How the inputs of a kind ended.

    refused: how many for each reason.
    wrong: how many with each error; examples: the first such input.
    most_bytes: the most memory that an input took.
    """

    kind: str
    accepted: int = 0
    refused: Counter[str] = field(default_factory=Counter)
    wrong: Counter[str] = field(default_factory=Counter)
    examples: dict[str, str] = field(default_factory=dict)
    most_bytes: int = 0

    @property
    def tried(self) -> int:
        """All inputs."""
        return self.accepted + self.refused.total() + self.wrong.total()

    @property
    def is_one_sided(self) -> bool:
        """Whether none was accepted or none refused: the inputs then prove little."""
        return not self.accepted or not self.refused


def try_inputs(
    kind: Kind,
    count: int,
    folder: Path,
    *,
    number: int = 0,
    before: Callable[[], None] | None = None,
    stop_at_wrong: bool = False,
) -> Tally:
    """Try so many inputs of a kind, the same ones for the same number.

    Args:
        kind: The kind.
        count: How many inputs.
        folder: Where they are written; the last one stays.
        number: Another number gives other inputs.
        before: Called before each input.
        stop_at_wrong: Whether to raise the error of the first wrong input, in its simplest form.
    """
    tally = Tally(kind.name)

    @seed(number)
    @settings(
        max_examples=count,
        database=None,
        deadline=None,
        phases=(Phase.generate, Phase.shrink) if stop_at_wrong else (Phase.generate,),
        suppress_health_check=list(HealthCheck),
    )
    @given(kind.inputs())
    def try_one(damaged: Any) -> None:
        if before:
            before()
        try:
            _count(tally, kind, damaged, folder)
        except Exception as error:
            if stop_at_wrong:
                raise
            words = _in_words(error)
            tally.wrong[words] += 1
            tally.examples.setdefault(words, repr(damaged))

    with _low_limits():
        try_one()
    return tally


def _count(tally: Tally, kind: Kind, damaged: Any, folder: Path) -> None:
    before = _reset_peak_bytes()
    reason = _reason(kind, damaged, folder)
    grown = _peak_bytes() - before
    tally.most_bytes = max(tally.most_bytes, grown)
    assert grown <= _MOST_BYTES, f"it took {grown >> 20} MB of memory"
    if reason is None:
        tally.accepted += 1
    else:
        tally.refused[reason] += 1


def _reason(kind: Kind, damaged: Any, folder: Path) -> str | None:
    """Why an input is refused: a code of `reasons.yaml`, or the name of the error."""
    try:
        reason = kind.outcome(damaged, folder)
    except RefusedError as error:
        return str(error)
    except OWN_ERRORS as error:
        refusal = error
    else:
        return None if reason is None else require_known(reason)
    assert "\n" not in str(refusal), f"not one sentence: {refusal}"
    if isinstance(refusal, ImageError):
        return require_known(refusal.reason)
    return type(refusal).__name__


def _in_words(error: Exception) -> str:
    last = traceback.extract_tb(error.__traceback__)[-1]
    words = f"{type(error).__name__}: {error}"
    return f"{shorten(words, 120)} ({Path(last.filename).name}:{last.lineno})"


@contextmanager
def _low_limits() -> Iterator[None]:
    with patch.dict(os.environ, _LIMITS), patch("storage.masks._MAX_VOXELS", _MOST_VOXELS):
        image_limits.cache_clear()
        try:
            yield
        finally:
            image_limits.cache_clear()


def _reset_peak_bytes() -> int:
    """Let the peak of memory start anew, where Linux tells it."""
    if sys.platform == "linux":
        Path("/proc/self/clear_refs").write_text("5", encoding="ascii")
    return _peak_bytes()


def _peak_bytes() -> int:
    if sys.platform != "linux":
        return 0
    status = Path("/proc/self/status").read_text(encoding="ascii")
    return int(status.partition("VmHWM:")[2].split()[0]) << 10
