"""One slice of a CT: where a DICOM header says that its pixels lie, and its pixels in HU.

Geometry: PS3.3 C.7.6.2.1.1; rescale: C.11.1.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from pydicom import Dataset

from storage.images import dicom
from storage.images.types import ImageError
from storage.images.voxels import to_hounsfield, to_signal

_NOT_HOUNSFIELD = ("OD", "MGML", "Z_EFF", "ED", "EDW", "PCT")
"""RescaleTypes (C.11.1.1.2) of other quantities, such as the iodine maps of dual energy."""

SAME_DIRECTION = 1e-3
"""Direction cosines are written with few digits."""


@dataclass(frozen=True, eq=False)
class Slice:
    """Where the pixels of one file, or of one frame of it, lie, in DICOM's LPS millimetres.

    frame: index in the file, from 0; None if the file is a single image.
    instance, acquisition, images_in_acquisition: what the file says of its place in the series;
        None where it does not.
    slope, intercept: of the stored values to HU.
    """

    path: Path
    series: str
    shape: tuple[int, int]
    spacing_yx_mm: tuple[float, float]
    row_direction: NDArray[np.float64]
    column_direction: NDArray[np.float64]
    position_lps_mm: NDArray[np.float64]
    thickness_mm: float
    slope: float
    intercept: float
    frame: int | None = None
    instance: int | None = None
    acquisition: int | None = None
    images_in_acquisition: int | None = None

    @property
    def name(self) -> str:
        """The file, and the frame in it, for a sentence."""
        return self.path.name if self.frame is None else f"frame {self.frame + 1}"

    @property
    def normal(self) -> NDArray[np.float64]:
        """Unit vector to the next slice, in LPS."""
        return np.cross(self.row_direction, self.column_direction)

    @property
    def depth_mm(self) -> float:
        """Place along the normal; slices are sorted by it."""
        return float(self.position_lps_mm @ self.normal)

    def hounsfield(self, stored: NDArray[np.integer]) -> NDArray[np.int16]:
        """The stored pixels (rows, columns) in HU.

        Raises:
            ImageError: `image_unreadable`, if they are not as many as the header says.
        """
        self._check_shape(stored)
        return to_hounsfield(stored, self.slope, self.intercept)

    def signal(self, stored: NDArray[np.integer]) -> NDArray[np.float32]:
        """The stored pixels of another modality than CT, rescaled; raises as `hounsfield`."""
        self._check_shape(stored)
        return to_signal(stored, self.slope, self.intercept)

    def _check_shape(self, stored: NDArray[np.integer]) -> None:
        if stored.shape != self.shape:
            raise ImageError(
                "image_unreadable",
                f"{self.path} has {stored.shape} pixels, but its header says {self.shape}",
            )


def slice_of(path: Path, header: Dataset, frame: int | None = None, modality: str = "CT") -> Slice:
    """What a header says of a slice; of a frame, its macros are at the top of the data set.

    Only a CT needs a rescale: the signal of others has no unit.

    Raises:
        ImageError: `image_unsupported`, `image_unreadable`; `geometry_missing`, if its place in
            the patient is not given.
    """
    dicom.check_single_grey_frame(path, header)
    spacing = dicom.positive_pair(header, "PixelSpacing")
    orientation = _vector(header, "ImageOrientationPatient", 6)
    position = _vector(header, "ImagePositionPatient", 3)
    if spacing is None or orientation is None or position is None:
        raise ImageError(
            "geometry_missing",
            f"{path} does not give its PixelSpacing, ImageOrientationPatient and "
            "ImagePositionPatient: where its pixels lie is not known",
        )
    row, column = orientation[:3], orientation[3:]
    products = [row @ row - 1, column @ column - 1, row @ column]
    if max(map(abs, products)) > SAME_DIRECTION:
        raise ImageError(
            "geometry_missing",
            f"{path} has an ImageOrientationPatient that is not two directions at a right angle",
        )
    has_unit = modality == "CT" or dicom.has_rescale(header)
    slope, intercept = _rescale(path, header) if has_unit else (1.0, 0.0)
    return Slice(
        path=path,
        series=str(header.get("SeriesInstanceUID") or ""),
        shape=(int(header.Rows), int(header.Columns)),
        spacing_yx_mm=spacing,
        row_direction=row,
        column_direction=column,
        position_lps_mm=position,
        thickness_mm=float(header.get("SliceThickness") or 0),
        slope=slope,
        intercept=intercept,
        frame=frame,
        instance=whole_number(header, "InstanceNumber"),
        acquisition=whole_number(header, "AcquisitionNumber"),
        images_in_acquisition=whole_number(header, "ImagesInAcquisition"),
    )


def _rescale(path: Path, header: Dataset) -> tuple[float, float]:
    """Slope and intercept of stored values to HU."""
    if not dicom.has_rescale(header):
        raise ImageError(
            "not_hounsfield",
            f"{path} has no RescaleSlope or RescaleIntercept: its values are not Hounsfield units",
        )
    kind = str(header.get("RescaleType") or "")
    if kind in _NOT_HOUNSFIELD:
        raise ImageError(
            "not_hounsfield", f"{path} has the RescaleType {kind}: it is no image in HU"
        )
    slope, intercept = float(header.RescaleSlope), float(header.RescaleIntercept)
    if slope == 0 or not (math.isfinite(slope) and math.isfinite(intercept)):
        raise ImageError(
            "not_hounsfield", f"{path} has the RescaleSlope {slope} and intercept {intercept}"
        )
    return slope, intercept


def _vector(header: Dataset, keyword: str, length: int) -> NDArray[np.float64] | None:
    values = header.get(keyword)
    if values is None or isinstance(values, str) or len(values) != length:
        return None
    vector = np.array([float(value) for value in values])
    return vector if np.isfinite(vector).all() else None


def whole_number(header: Dataset, keyword: str) -> int | None:
    """A number that a series can do without: None if it is not there or damaged."""
    try:
        return int(header.get(keyword))
    except (TypeError, ValueError):
        return None
