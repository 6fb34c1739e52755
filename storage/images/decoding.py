"""What the image libraries say on bad files, turned into one sentence for a person."""

from __future__ import annotations

import logging
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from textwrap import shorten

import numpy as np

from storage.images.limits import LimitsError
from storage.images.types import ImageError


@contextmanager
def decoding(path: Path, kind: str) -> Iterator[None]:
    """Run library code on a file that may hold anything.

    Whatever a library raises becomes an `ImageError`; what it warns of does not reach the
    terminal: either the file can be read, or the error says why not.

    Args:
        path: The file, for the sentence.
        kind: What it is read as: DICOM, NIfTI, PNG, …

    Raises:
        ImageError: `image_unreadable`, or the one that the code itself raised.
        LimitsError: if the code reads a limit that is set wrong.
    """
    _hush_libraries()
    try:
        # Damaged numbers overflow; the checks that follow refuse what comes of it.
        with np.errstate(over="ignore", invalid="ignore"):
            yield
    except (ImageError, LimitsError):
        raise
    # Damaged bytes make decoders raise nearly anything: struct.error, KeyError, zlib.error, …
    except Exception as error:
        said = str(error).removesuffix(_FOR_PROGRAMMERS)
        reason = shorten(said, width=240, placeholder=" …") or type(error).__name__
        raise ImageError(
            "image_unreadable",
            f"{path} cannot be read as {kind}, it may be damaged or cut short: {reason}",
        ) from error


_FOR_PROGRAMMERS = "Use force=True to force reading."
"""What pydicom ends a message with."""


def _hush_libraries() -> None:
    # Not warnings.catch_warnings: it is not safe in threads, where shards are read.
    warnings.filterwarnings("ignore", module=r"(pydicom|nibabel|PIL)\b")
    for name in ("pydicom", "nibabel.global", "PIL"):
        logging.getLogger(name).setLevel(logging.CRITICAL)
