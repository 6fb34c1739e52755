"""What is there of a data set, and what is missing, before any work starts.

The declaration says what a download holds and what its owners count; the reader counts what it
would read. No image is opened.
"""

from __future__ import annotations

import hashlib
from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from fnmatch import fnmatchcase
from pathlib import Path
from typing import Literal

from storage.datasets.declaration import Declaration, ExpectedFile
from storage.datasets.downloads import find_files, folders_below, is_junk
from storage.datasets.reader import (
    CountsFiles,
    DatasetError,
    DatasetReader,
    FindsFiles,
    NamesImages,
    SourceRecord,
)

STUDIES = "studies"

Verdict = Literal["ok", "part", "missing", "more"]


@dataclass(frozen=True)
class Check:
    """One thing that was looked for.

    verdict: `more` is more than the owners count, as of another release.
    """

    name: str
    verdict: Verdict
    found: str

    @property
    def is_fault(self) -> bool:
        """Whether nothing can be built: the reader finds no study.

        Files that are not where the declaration has them may be in another form that is read too,
        such as unpacked: the reader tells.
        """
        return self.name == STUDIES and self.verdict == "missing"


def inspect_source(
    declaration: Declaration, folder: Path | None, tick: Callable[[], None]
) -> Iterator[Check]:
    """Look for what the data set should hold, one thing at a time.

    Args:
        declaration: of the data set.
        folder: of its files; None for its own.
        tick: called after each record and each image.

    Raises:
        DatasetError: if there is no folder to look in.
    """
    root = folder or declaration.own_folder()
    if not root.is_dir():
        raise DatasetError(f"there is no folder {root}")
    yield Check("folder", "ok", str(root))
    deeper: list[Path] = []
    for expected in declaration.files:
        count, place = _found(root, expected.path.removeprefix("*/"))
        deeper += [place] if place != root else []
        yield _file(root, expected, count, place)
    if missing := declaration.missing_images(folder):
        yield Check("image folder", "missing", f"a download of their own, expected in {missing}")
    try:
        reader = declaration.open(folder)
        if isinstance(reader, FindsFiles):
            yield from (Check("read from", "ok", said) for said in reader.found())
        counts = _count(reader, tick)
    except DatasetError as error:
        instead = f"; give the folder {deeper[0]}, where its files are" if deeper else ""
        yield Check(STUDIES, "missing", f"{error}{instead}")
        return
    yield from _compared(counts, declaration.counts)
    if isinstance(reader, NamesImages) and not missing:
        yield from _images(reader, tick)


def _file(root: Path, expected: ExpectedFile, count: int, place: Path) -> Check:
    """Whether a file, or any of a pattern, is below the folder, and in which one."""
    if count:
        pattern = expected.path.removeprefix("*/").removeprefix("**/")
        found = f"{count:,} of this pattern" if "*" in pattern else "there"
        deeper = f", in {place.relative_to(root)}" if place != root else ""
        return Check(expected.path, "ok", f"{found}{deeper}: {expected.what}")
    how = "optional" if expected.optional else "needed"
    return Check(expected.path, "missing", f"{how}: {expected.what}")


def _found(root: Path, pattern: str) -> tuple[int, Path]:
    """How many files fit a pattern, and in which folder, at most some deeper.

    A name at any depth is not looked for in folders of patients.
    """
    name = pattern.removeprefix("**/")
    if name != pattern and "/" not in name:
        folders = (folder for folder in folders_below(root) if fnmatchcase(folder.name, name))
        return sum(1 for _ in (*find_files(root, name), *folders)), root
    for folder in folders_below(root):
        if found := sum(not is_junk(path.name) for path in folder.glob(pattern)):
            return found, folder
    return 0, root


def _count(reader: DatasetReader, tick: Callable[[], None]) -> dict[str, int]:
    """Studies by split, patients, and what else the reader counts."""
    counts = Counter({STUDIES: 0})
    patients: set[bytes] = set()
    for record in reader.records():
        counts[STUDIES] += 1
        counts[f"studies.{record.split}"] += 1
        if record.patient_id is not None:
            patients.add(_short_digest(record))
        tick()
    if patients:
        counts["patients"] = len(patients)
    others: Mapping[str, int] = reader.census() if isinstance(reader, CountsFiles) else {}
    return {**counts, **others}


def _short_digest(record: SourceRecord) -> bytes:
    """Eight bytes for a patient, of whom there may be very many."""
    return hashlib.blake2b(str(record.patient_id).encode(), digest_size=8).digest()


def _compared(counts: Mapping[str, int], official: Mapping[str, int]) -> Iterator[Check]:
    """What was counted, against what the owners say."""
    splits = [name for name in counts if name.startswith("studies.")]
    for name, count in counts.items():
        if name in official or len(splits) != 1 or name not in splits:
            yield _against(name, count, official.get(name))
    for name, count in official.items():
        if name not in counts:
            is_split = name.startswith("studies.")
            found = f"none of {count:,}" if is_split else f"{count:,} officially; not counted here"
            yield Check(name, "missing" if is_split else "ok", found)


def _against(name: str, count: int, official: int | None) -> Check:
    if official is None:
        return Check(name, "ok" if count else "missing", f"{count:,}")
    if count == official:
        return Check(name, "ok", f"all {count:,}")
    if count > official:
        return Check(name, "more", f"{count:,}, officially {official:,}: another release?")
    return Check(name, "part" if count else "missing", f"{count:,} of {official:,}")


def _images(reader: NamesImages, tick: Callable[[], None]) -> Iterator[Check]:
    """How many images are where the source says, by their status alone."""
    named = there = 0
    first = ""
    for path in reader.image_paths():
        named += 1
        if _exists(path):
            there += 1
        else:
            first = first or str(path)
        tick()
    if not named:
        return
    if there == named:
        yield Check("image files", "ok", f"all {named:,}")
    else:
        found = f"{there:,} of {named:,}; the first that is missing: {first}"
        yield Check("image files", "part" if there else "missing", found)


def _exists(path: Path) -> bool:
    try:
        path.stat()
    except (OSError, ValueError):
        return False
    return True
