"""CT volumes from folders that hold one DICOM series.

Geometry: PS3.3 C.7.6.2.1.1. Slices are sorted by their position along the slice normal, never by
name or number; the affine goes through the slices' own positions, so that a tilted gantry gives
a sheared grid in the right place.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from pydicom import Dataset
from pydicom.pixels.processing import apply_rescale

from storage.images import dicom
from storage.images.decoding import decoding
from storage.images.types import ImageDescription, ImageError, Volume
from storage.images.voxels import check_geometry, describe_grid, to_hounsfield, to_ras

_SAME_DIRECTION = 1e-3  # direction cosines are written with few digits
_POSITION_TOLERANCE = 0.2  # of the slice distance: 0.5 mm slices rounded to 0.1 mm still pass
_LPS_TO_RAS = np.diag([-1.0, -1.0, 1.0, 1.0])


@dataclass(frozen=True)
class _Slice:
    """Where one file's pixels lie, in DICOM's LPS millimetres."""

    path: Path
    series: str
    shape: tuple[int, int]
    spacing_yx_mm: tuple[float, float]
    row_direction: NDArray[np.float64]
    column_direction: NDArray[np.float64]
    position_lps_mm: NDArray[np.float64]
    thickness_mm: float

    @property
    def normal(self) -> NDArray[np.float64]:
        return np.cross(self.row_direction, self.column_direction)

    @property
    def depth_mm(self) -> float:
        return float(self.position_lps_mm @ self.normal)


def read(folder: Path) -> Volume:
    """Load a folder with one DICOM series as a CT volume."""
    slices = _sorted_slices(folder)
    affine = _affine_ras(folder, slices)
    rows, columns = slices[0].shape
    hu = np.empty((columns, rows, len(slices)), np.int16)
    for index, piece in enumerate(slices):
        with decoding(piece.path, "DICOM"):
            hu[:, :, index] = _hounsfield(piece.path).T
    turned, affine = to_ras(hu, affine)
    return Volume(np.ascontiguousarray(turned, dtype=np.int16), affine)


def describe(folder: Path) -> ImageDescription:
    """Describe a folder with one DICOM series from the headers."""
    slices = _sorted_slices(folder)
    rows, columns = slices[0].shape
    return describe_grid((columns, rows, len(slices)), _affine_ras(folder, slices))


def _sorted_slices(folder: Path) -> list[_Slice]:
    with decoding(folder, "a folder of DICOM files"):
        paths = [path for path in sorted(folder.iterdir()) if _belongs_to_series(path)]
    if not paths:
        raise ImageError("image_unreadable", f"{folder} holds no DICOM file")
    slices = []
    for path in paths:
        with decoding(path, "DICOM"):
            slices.append(_slice(path, dicom.read_header(path)))
    _check_one_stack(folder, slices)
    slices.sort(key=lambda piece: piece.depth_mm)
    return slices


def _belongs_to_series(path: Path) -> bool:
    """Leaves out what archives put beside images: folders, hidden files, indices, notes."""
    if not path.is_file() or path.name.startswith(".") or path.name == "DICOMDIR":
        return False
    # An empty or cut file must not pass as a note: a slice would be missing unseen.
    return path.suffix.lower() == ".dcm" or path.stat().st_size == 0 or dicom.is_dicom(path)


def _slice(path: Path, header: Dataset) -> _Slice:
    modality = str(header.get("Modality") or "not stated")
    if modality != "CT":
        raise ImageError("image_unsupported", f"{path} has the modality {modality}, not CT")
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
    if max(map(abs, products)) > _SAME_DIRECTION:
        raise ImageError(
            "geometry_missing",
            f"{path} has an ImageOrientationPatient that is not two directions at a right angle",
        )
    return _Slice(
        path=path,
        series=str(header.get("SeriesInstanceUID") or ""),
        shape=(int(header.Rows), int(header.Columns)),
        spacing_yx_mm=spacing,
        row_direction=row,
        column_direction=column,
        position_lps_mm=position,
        thickness_mm=float(header.get("SliceThickness") or 0),
    )


def _vector(header: Dataset, keyword: str, length: int) -> NDArray[np.float64] | None:
    values = header.get(keyword)
    if values is None or isinstance(values, str) or len(values) != length:
        return None
    vector = np.array([float(value) for value in values])
    return vector if np.isfinite(vector).all() else None


def _check_one_stack(folder: Path, slices: Sequence[_Slice]) -> None:
    if len(series := Counter(piece.series for piece in slices)) > 1:
        counts = ", ".join(str(count) for count in sorted(series.values(), reverse=True))
        raise ImageError(
            "image_unsupported",
            f"{folder} holds {len(series)} series (of {counts} images): "
            "give each series a folder of its own",
        )
    first = slices[0]
    for piece in slices[1:]:
        if not _is_parallel(first, piece):
            raise ImageError(
                "image_unsupported",
                f"{folder} mixes images of different size, pixel spacing or orientation "
                f"({first.path.name} and {piece.path.name}): one stack of slices is needed",
            )


def _is_parallel(one: _Slice, other: _Slice) -> bool:
    return (
        one.shape == other.shape
        and np.allclose(one.spacing_yx_mm, other.spacing_yx_mm, rtol=_SAME_DIRECTION)
        and np.allclose(one.row_direction, other.row_direction, atol=_SAME_DIRECTION)
        and np.allclose(one.column_direction, other.column_direction, atol=_SAME_DIRECTION)
    )


def _affine_ras(folder: Path, slices: Sequence[_Slice]) -> NDArray[np.float64]:
    """Voxel index (column, row, slice) to RAS mm."""
    first = slices[0]
    affine = np.eye(4)
    affine[:3, 0] = first.row_direction * first.spacing_yx_mm[1]
    affine[:3, 1] = first.column_direction * first.spacing_yx_mm[0]
    affine[:3, 2] = _step_lps_mm(folder, slices)
    affine[:3, 3] = first.position_lps_mm
    return check_geometry(folder, _LPS_TO_RAS @ affine)


def _step_lps_mm(folder: Path, slices: Sequence[_Slice]) -> NDArray[np.float64]:
    """The way from one slice to the next.

    Raises:
        ImageError: if the slices do not lie at equal steps on one line.
    """
    if len(slices) == 1:
        return slices[0].normal * slices[0].thickness_mm
    positions = np.array([piece.position_lps_mm for piece in slices])
    gaps_mm = np.diff([piece.depth_mm for piece in slices])
    tolerance_mm = _POSITION_TOLERANCE * float(np.median(gaps_mm))
    if gaps_mm.min() <= tolerance_mm:
        names = _names_around(slices, int(gaps_mm.argmin()))
        raise ImageError("image_unsupported", f"{folder} has two slices in one place: {names}")
    step = (positions[-1] - positions[0]) / (len(slices) - 1)
    expected = positions[0] + np.arange(len(slices))[:, None] * step
    if np.linalg.norm(positions - expected, axis=1).max() > tolerance_mm:
        steps = np.diff(positions, axis=0)
        usual = np.median(steps, axis=0)
        at = int(np.linalg.norm(steps - usual, axis=1).argmax())
        raise ImageError(
            "image_unsupported",
            f"{folder} has slices at unequal steps, slices may be missing: "
            f"{np.linalg.norm(steps[at]):.3g} mm between {_names_around(slices, at)}, "
            f"elsewhere {np.linalg.norm(usual):.3g} mm",
        )
    return np.asarray(step)


def _names_around(slices: Sequence[_Slice], gap: int) -> str:
    return f"{slices[gap].path.name} and {slices[gap + 1].path.name}"


def _hounsfield(path: Path) -> NDArray[np.int16]:
    dataset = dicom.read_whole(path)
    if not dicom.has_rescale(dataset):
        raise ImageError(
            "image_unsupported",
            f"{path} has no RescaleSlope or RescaleIntercept: its values are not Hounsfield units",
        )
    return to_hounsfield(apply_rescale(dicom.stored_pixels(path, dataset), dataset))
