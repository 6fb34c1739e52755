"""Radiographs and CT volumes in one canonical form, whatever file they come from."""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray


class ImageError(Exception):
    """An image that cannot be used: a reason code and one sentence for a person.

    Codes: `image_not_found`, `image_unreadable` (truncated, damaged, not an image),
    `geometry_missing` (where the voxels lie in the patient is not known), `image_unsupported`
    (colour, several frames, another modality, …), `geometry_inconsistent`, `not_hounsfield`,
    `series_incomplete`, `too_large` (beyond `storage.images.limits`).
    """

    def __init__(self, reason: str, detail: str) -> None:
        super().__init__(detail)
        self.reason = reason
        self.detail = detail

    def __reduce__(self) -> tuple[type[ImageError], tuple[str, str]]:
        """Let the error cross process borders with both arguments."""
        return type(self), (self.reason, self.detail)


@dataclass(frozen=True)
class Radiograph:
    """A projection radiograph as a reader sees it.

    pixels: float32 (rows, columns), 0 to 1, bright is dense (MONOCHROME1 already inverted).
    spacing_yx_mm: mm between rows and between columns; None when the file does not say.
    view: DICOM view position (PA, AP, LATERAL, …); None when the file does not say.
    modality: DICOM modality (CR, DX, …); OT, DICOM's "other", when the file does not say.
    """

    pixels: NDArray[np.float32]
    spacing_yx_mm: tuple[float, float] | None
    view: str | None
    modality: str


@dataclass(frozen=True)
class Volume:
    """A CT volume, or one of another modality, on a RAS+ grid.

    hu: (x, y, z), C order; the indices grow towards the patient's right, anterior and superior
        (RAS+). Of a CT int16, Hounsfield units. Of another modality float32, the values that its
        file states: the signal of MR, which has no unit, or Bq/ml or SUV of PET.
    affine: (4, 4), voxel index to RAS millimetres, translation in the last column.
    stored_affine: the same for the voxels in the order of the file's own axes; None for a series
        of slices, which has no grid of its own.
    """

    hu: NDArray[np.int16] | NDArray[np.float32]
    affine: NDArray[np.float64]
    modality: str = "CT"
    stored_affine: NDArray[np.float64] | None = None

    @property
    def spacing_xyz_mm(self) -> tuple[float, float, float]:
        """Voxel size along x, y, z in mm."""
        x, y, z = np.linalg.norm(self.affine[:3, :3], axis=0)
        return float(x), float(y), float(z)


@dataclass(frozen=True)
class ImageDescription:
    """What the headers say of an image.

    shape: rows, columns of a radiograph; x, y, z of a volume on its RAS+ grid.
    spacing_mm: in the order of shape; None when the file does not say.
    left_out: a sentence on each object in the folder of a series that is no part of the image,
        such as a localizer; notes and indices are not among them.
    affine: (4, 4), voxel index of the RAS+ grid to RAS mm; None of a radiograph.
    """

    modality: str
    view: str | None
    shape: tuple[int, ...]
    spacing_mm: tuple[float, ...] | None
    left_out: tuple[str, ...] = ()
    affine: NDArray[np.float64] | None = field(default=None, compare=False)
