"""The volumes of CT-RATE: where they are, which release each is of, and what the first one lacks.

The first release holds stored values without rescale and without spacing, which its metadata table
has; the corrected one holds Hounsfield units and its spacing. A file does not say which it is of:
its folder does, and its values.
"""

from __future__ import annotations

import hashlib
import os
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from storage.datasets.downloads import folders_below, is_junk
from storage.datasets.row_index import RowIndex
from storage.images.header_correction import HeaderCorrection
from storage.images.hounsfield import may_be_hounsfield
from storage.images.types import ImageError

Release = Literal["first", "corrected"]

NAME = re.compile(r"(train|valid)(?:ation)?_(\d+)_([a-z]+)(?:_(\w+))?(?:\.nii(?:\.gz)?)?")
"""Split, patient, scan, and reconstruction of a volume; reports may be named by the scan alone."""

RESCALE_AND_SPACING = ("RescaleSlope", "RescaleIntercept", "XYSpacing", "ZSpacing")

_PATIENT = re.compile(r"(train|valid)_\d+")
_SUFFIXES = (".nii.gz", ".nii")
_NUMBER = re.compile(r"-?\d+(?:\.\d+)?(?:[eE][-+]?\d+)?")


class VolumeError(Exception):
    """A volume that cannot be used: a reason code and a sentence."""

    def __init__(self, reason: str, detail: str) -> None:
        super().__init__(detail)
        self.reason = reason


@dataclass(frozen=True, order=True)
class VolumeFolder:
    """A folder with the folders of patients in it.

    rank: the lower one of two with the same volume counts.
    release: which its name says that its volumes are of; None if it says nothing.
    """

    rank: int
    path: Path
    release: Release | None

    @classmethod
    def of(cls, path: Path) -> VolumeFolder:
        """What the name of a folder says, such as `train_fixed`."""
        if path.name.endswith("_fixed"):
            return cls(0, path, "corrected")
        if path.name in ("train", "valid", "validation"):
            return cls(2, path, "first")
        return cls(1, path, None)


class Volumes:
    """The volumes below the folder that a user names."""

    def __init__(self, root: Path) -> None:
        """Look for folders with the folders of patients in them.

        Raises:
            DatasetError: if a folder cannot be listed.
        """
        self.folders = sorted(map(VolumeFolder.of, filter(_has_patients, folders_below(root))))

    def of_scan(self, scan: str) -> dict[str, tuple[Path, Release | None]]:
        """The volumes of a scan such as `train_1_a` by name, and what the folder says of each."""
        found: dict[str, tuple[Path, Release | None]] = {}
        for folder in self.folders:
            for path in _volumes_in(folder.path / scan.rpartition("_")[0] / scan):
                found.setdefault(stem(path.name), (path, folder.release))
        return dict(sorted(found.items()))

    def count(self) -> Mapping[str, int]:
        """Volumes on disk, and what their folders say of them."""
        counts = {"images": 0, "images.corrected_release": 0, "images.first_release": 0}
        seen: set[str] = set()
        for folder in self.folders:
            for path in _volumes_below(folder.path):
                if path.name in seen:
                    continue
                seen.add(path.name)
                counts["images"] += 1
                if folder.release:
                    counts[f"images.{folder.release}_release"] += 1
        return counts

    def digest(self) -> str:
        """Changes with the names, sizes and times of the volumes."""
        digest = hashlib.sha256()
        for folder in self.folders:
            for path in _volumes_below(folder.path):
                status = path.stat()
                said = f"{path}\0{status.st_size}\0{status.st_mtime_ns}\0"
                digest.update(os.fsencode(said))
        return digest.hexdigest()


def stem(name: str) -> str:
    """A volume's name without its suffix, and with `valid` where a table says `validation`."""
    name = name.rpartition("/")[2].removesuffix(".gz").removesuffix(".nii")
    return re.sub(r"^validation_", "valid_", name)


def correction_of_first_release(name: str, metadata: RowIndex | None) -> HeaderCorrection:
    """Rescale and spacing of a volume of the first release.

    Raises:
        VolumeError: `geometry_missing`, if the table does not give them.
    """
    rows = metadata.rows(name) if metadata else []
    if not rows:
        table = metadata.table.name if metadata else "no metadata table, which"
        raise VolumeError(
            "geometry_missing",
            f"{name} is of the first release, and {table} does not give its rescale and spacing",
        )
    cells = rows[0].cells
    slope, intercept, xy, z = (
        [float(number) for number in _NUMBER.findall(cells.get(column, ""))]
        for column in RESCALE_AND_SPACING
    )
    if len(slope) != 1 or len(intercept) != 1 or len(xy) != 2 or len(z) != 1:
        said = ", ".join(f"{column} {cells.get(column, '')!r}" for column in RESCALE_AND_SPACING)
        raise VolumeError(
            "geometry_missing",
            f"{name} is of the first release, and its metadata are incomplete ({said}); the "
            "corrected release has them in the file",
        )
    return HeaderCorrection(slope[0], intercept[0], (xy[0], xy[1], z[0]))


def release_by_values(
    path: Path, said: Release | None, correction: HeaderCorrection
) -> Release | None:
    """The release that a volume is of, by what its folder says and by its first planes.

    Values that are Hounsfield units as they stand, and are none after the rescale, are of the
    corrected release in whatever folder, and the other way round. Else the folder counts; None if
    it says nothing.
    """
    from storage.images.nifti import first_planes

    try:
        values = first_planes(path)
    except ImageError:
        return said  # whoever opens it sets it aside with its reason
    as_stored = may_be_hounsfield(values)
    rescaled = may_be_hounsfield(values * correction.slope + correction.intercept)
    if as_stored == rescaled:
        return said
    return "corrected" if as_stored else "first"


def _has_patients(folder: Path) -> bool:
    with os.scandir(folder) as entries:
        return any(_PATIENT.fullmatch(entry.name) and entry.is_dir() for entry in entries)


def _volumes_below(folder: Path) -> Iterator[Path]:
    for patient in _listed(folder):
        if _PATIENT.fullmatch(patient.name):
            for scan in _listed(patient):
                yield from _volumes_in(scan)


def _volumes_in(folder: Path) -> list[Path]:
    return [
        path for path in _listed(folder) if path.name.endswith(_SUFFIXES) and not is_junk(path.name)
    ]


def _listed(folder: Path) -> list[Path]:
    """What is in a folder, by name; nothing where it is none."""
    return sorted(folder.iterdir()) if folder.is_dir() else []
