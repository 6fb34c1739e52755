"""The fuzzers tell what is wrong."""

import sys
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from hypothesis import strategies as st

from storage.images.limits import image_limits
from storage.images.types import ImageError
from tests.fuzz.trials import Kind, RefusedError, try_inputs


def _end(end: Exception | str | None) -> Callable[[int, Path], str | None]:
    """Always the same error or reason."""

    def outcome(given: int, folder: Path) -> str | None:
        if isinstance(end, Exception):
            raise end
        return end

    return outcome


def _memory(given: int, folder: Path) -> None:
    np.ones(300_000_000, np.uint8)


def _kind(outcome: Callable[[int, Path], str | None]) -> Kind:
    return Kind("numbers", lambda: st.integers(0, 9), outcome)


WRONG = [
    (_end(KeyError("a")), "KeyError"),
    (_end(ImageError("no_such_code", "a.png is damaged")), "UnknownReasonError"),
    (_end(ImageError("image_unreadable", "a.png\nis damaged")), "not one sentence"),
    (_end("no_such_code"), "UnknownReasonError"),
    pytest.param(
        _memory, "MB of memory", marks=pytest.mark.skipif(sys.platform != "linux", reason="/proc")
    ),
]


@pytest.mark.parametrize(("outcome", "words"), WRONG)
def test_what_is_wrong_is_counted(
    tmp_path: Path, outcome: Callable[[int, Path], str | None], words: str
) -> None:
    tally = try_inputs(_kind(outcome), 3, tmp_path)
    assert (tally.tried, tally.wrong.total()) == (3, 3)
    assert words in "".join(tally.wrong)


def test_the_first_wrong_input_is_raised_in_its_simplest_form(tmp_path: Path) -> None:
    def outcome(given: int, folder: Path) -> None:
        assert given < 3, f"it is {given}"

    with pytest.raises(AssertionError, match="it is 3"):
        try_inputs(_kind(outcome), 50, tmp_path, stop_at_wrong=True)


def test_refused_and_accepted_inputs_are_counted_by_reason(tmp_path: Path) -> None:
    refusals = (
        _end(ImageError("too_large", "a.png has 10 pixels")),
        _end(RefusedError("counts for none")),
        _end("xml_unreadable"),
        _end(None),
    )

    def outcome(given: int, folder: Path) -> str | None:
        return refusals[given % 4](given, folder)

    tally = try_inputs(_kind(outcome), 10, tmp_path)
    assert set(tally.refused) == {"too_large", "counts for none", "xml_unreadable"}
    assert tally.accepted + tally.refused.total() == tally.tried == 10
    assert image_limits().max_pixels > 1_000_000  # the low limits are lifted
