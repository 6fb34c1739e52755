"""Radiographs and CT volumes in one canonical form, from DICOM, NIfTI, PNG and JPEG files.

The readers in `storage.formats` are imported when the first image is read: pydicom and nibabel
would otherwise slow down every start of the program.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray


class ImageError(Exception):
    """An image that cannot be used: a reason code and one sentence for a person.

    Codes: `image_not_found`, `image_unreadable` (truncated, damaged, not an image),
    `geometry_missing` (where the voxels lie in the patient is not known), `image_unsupported`
    (colour, several frames, another modality, …).
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
    """A CT volume on a RAS+ grid.

    hu: int16 (x, y, z), C order, Hounsfield units; the indices grow towards the patient's right,
    front and head.
    affine: (4, 4), voxel index to RAS millimetres, translation in the last column.
    stored_affine: the same for the voxels in the order of the file's own axes; None for a series
        of slices, which has no grid of its own.
    """

    hu: NDArray[np.int16]
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
    """

    modality: str
    view: str | None
    shape: tuple[int, ...]
    spacing_mm: tuple[float, ...] | None


def load_radiograph(path: Path) -> Radiograph:
    """Load a DICOM, PNG or JPEG radiograph.

    Raises:
        ImageError: if it is missing, damaged, in colour, of several frames, of another modality,
            or compressed in a way that no installed decoder knows.
    """
    from storage.formats import radiographs

    return radiographs.read(_existing(path))


def load_volume(path: Path) -> Volume:
    """Load a CT from a NIfTI file or from a folder with one DICOM series.

    Raises:
        ImageError: if it is missing, damaged, not one three-dimensional CT, without geometry, or
            a series with slices missing, doubled or not parallel.
    """
    from storage.formats import dicom, dicom_series, nifti

    if _existing(path).is_dir():
        return dicom_series.read(path)
    if dicom.is_dicom(path):
        raise ImageError(
            "image_unsupported", f"{path} is one DICOM file: give the folder of its series"
        )
    return nifti.read(path)


def describe_image(path: Path) -> ImageDescription:
    """Describe a radiograph or volume from its headers; no pixel is decoded.

    Raises:
        ImageError: as the loaders, as far as headers can tell.
    """
    from storage.formats import dicom_series, nifti, radiographs

    if _existing(path).is_dir():
        return dicom_series.describe(path)
    if path.name.endswith((".nii", ".nii.gz")):
        return nifti.describe(path)
    return radiographs.describe(path)


def _existing(path: Path) -> Path:
    try:
        path.stat()
    except OSError as error:
        raise ImageError("image_not_found", f"{path} cannot be found: {error.strerror}") from error
    return path
