"""Radiographs and CT volumes in one canonical form, from DICOM and NIfTI files."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import nibabel as nib
import numpy as np
from numpy.typing import NDArray


class ImageError(Exception):
    """An image that cannot be used: a reason code and one sentence for a person."""

    def __init__(self, reason: str, detail: str) -> None:
        super().__init__(detail)
        self.reason = reason
        self.detail = detail


@dataclass(frozen=True)
class Radiograph:
    """A projection radiograph as a reader sees it.

    pixels: float32 (rows, columns), 0 to 1, bright is dense (MONOCHROME1 already inverted).
    spacing_yx_mm: mm between rows and between columns; None when the file does not say.
    view: DICOM view position (PA, AP, LATERAL, …); None when the file does not say.
    """

    pixels: NDArray[np.float32]
    spacing_yx_mm: tuple[float, float] | None
    view: str | None
    modality: str


@dataclass(frozen=True)
class Volume:
    """A CT volume on a RAS+ grid.

    hu: int16 (x, y, z), Hounsfield units; the indices grow towards the patient's right,
    front and head.
    affine: (4, 4), voxel index to RAS millimetres, translation in the last column.
    """

    hu: NDArray[np.int16]
    affine: NDArray[np.float64]
    modality: str = "CT"

    @property
    def spacing_xyz_mm(self) -> tuple[float, float, float]:
        """Voxel size along x, y, z in mm."""
        x, y, z = np.linalg.norm(self.affine[:3, :3], axis=0)
        return float(x), float(y), float(z)


def load_radiograph(path: Path) -> Radiograph:
    """Load a DICOM or PNG/JPEG radiograph; raises `ImageError`."""
    raise ImageError("image_unreadable", f"{path}: not written yet")


def load_volume(path: Path) -> Volume:
    """Load a NIfTI file or a folder with one DICOM series; raises `ImageError`."""
    image = nib.as_closest_canonical(nib.load(path))
    hu = np.clip(np.asanyarray(image.dataobj), -32768, 32767).astype(np.int16)
    return Volume(hu, np.asarray(image.affine, dtype=np.float64))
