"""What a user asks of `vividmed ingest`, whatever form the archive has."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

Progress = Callable[[str], Callable[[], None]]
"""Called with what begins; what it gives is called after each file or study of it."""

Refuses = Callable[[str], tuple[str, str] | None]
"""Why a build would not read a text: a reason code and a sentence; None where it reads it."""

Noted = Callable[[str, str, str], None]
"""Called with each finding: `fault` or `remark`, its code, and the sentence."""


def _no_progress(_: str) -> Callable[[], None]:
    return lambda: None


def _reads_all(_: str) -> None:
    return None


def not_noted(*_: str) -> None:
    """For those who only count findings."""


@dataclass(frozen=True)
class Request:
    """How an archive is to be understood and checked.

    file: the declaration that is going to be written.
    reports: a folder of report files or, beside a DICOM folder, a table; None to look for them.
    given: columns that the user named, by what they hold.
    encoding: of a table or of reports that are not UTF-8; None if none was named.
    percent: of the patients in each split; empty for the splits of the table.
    progress: told what is done.
    refuses: says of each text whether a build would read it.
    noted: called with each finding: whether it is a fault or a remark, its code, and a sentence.
    """

    file: Path
    reports: Path | None = None
    given: Mapping[str, Sequence[str]] = field(default_factory=dict)
    encoding: str | None = None
    percent: Mapping[str, int] = field(default_factory=dict)
    progress: Progress = _no_progress
    refuses: Refuses = _reads_all
    noted: Noted = not_noted
