"""CT volumes from folders that hold one DICOM series, or from the file of an enhanced CT.

Geometry: PS3.3 C.7.6.2.1.1. Slices are sorted by their position along the slice normal, never by
name or number; the affine goes through the slices' own positions, so that a tilted gantry gives
a sheared grid in the right place.
"""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from storage.images import dicom
from storage.images.decoding import decoding
from storage.images.dicom_slices import SAME_DIRECTION, Slice
from storage.images.enhanced_ct import pixels_of
from storage.images.hounsfield import check_hounsfield
from storage.images.limits import check_voxels
from storage.images.series_members import members
from storage.images.types import ImageDescription, ImageError, Volume
from storage.images.voxels import allocate_ras, check_geometry, describe_grid

_POSITION_TOLERANCE = 0.2  # of the slice distance: 0.5 mm slices rounded to 0.1 mm still pass
_LPS_TO_RAS = np.diag([-1.0, -1.0, 1.0, 1.0])


def read(source: Path, modality: str = "CT") -> Volume:
    """Load a volume from a folder with one series, or from an enhanced CT's file."""
    slices, _ = _sorted_slices(source, modality)
    shape, stored_affine = _shape(slices), _affine_ras(source, slices)
    if modality != "CT":
        signal, in_file, affine = allocate_ras(shape, stored_affine, np.float32)
        for index, piece, stored in _decoded(slices):
            in_file[:, :, index] = piece.signal(stored).T
        return Volume(signal, affine, modality)
    hu, of_slices, affine = allocate_ras(shape, stored_affine, np.int16)
    for index, piece, stored in _decoded(slices):
        of_slices[:, :, index] = piece.hounsfield(stored).T
    check_hounsfield(source, hu)
    return Volume(hu, affine)


def describe(source: Path, modality: str = "CT") -> ImageDescription:
    """Describe what `read` reads, from the headers."""
    slices, left_out = _sorted_slices(source, modality)
    return describe_grid(_shape(slices), _affine_ras(source, slices), modality, left_out)


class Stack(NamedTuple):
    """The slices of a series from bottom to top, for marks that were made on them.

    shape: columns, rows, slices.
    affine: (4, 4), column, row and slice index to RAS mm.
    slices: in order.
    """

    shape: tuple[int, int, int]
    affine: NDArray[np.float64]
    slices: tuple[Slice, ...]


def stack(source: Path, modality: str = "CT") -> Stack:
    """How the slices of what `read` reads lie, from the headers.

    Raises:
        ImageError: as `read`, as far as headers can tell.
    """
    slices, _ = _sorted_slices(source, modality)
    return Stack(_shape(slices), _affine_ras(source, slices), tuple(slices))


def _sorted_slices(source: Path, modality: str) -> tuple[list[Slice], tuple[str, ...]]:
    """One stack of slices by depth, and what is left out."""
    slices, left_out = members(source, modality)
    _check_one_stack(source, slices)
    check_voxels(source, _shape(slices))
    return sorted(slices, key=lambda piece: piece.depth_mm), left_out


def _shape(slices: Sequence[Slice]) -> tuple[int, int, int]:
    rows, columns = slices[0].shape
    return columns, rows, len(slices)


def _decoded(slices: Sequence[Slice]) -> Iterator[tuple[int, Slice, NDArray[np.integer]]]:
    """Each slice's index and stored pixels, file after file."""
    files: dict[Path, list[tuple[int, Slice]]] = defaultdict(list)
    for index, piece in enumerate(slices):
        files[piece.path].append((index, piece))
    for path, pieces in files.items():
        with decoding(path, "DICOM"):
            if pieces[0][1].frame is None:
                yield *pieces[0], dicom.stored_pixels(path, dicom.read_whole(path))
                continue
            by_frame = {piece.frame: (index, piece) for index, piece in pieces}
            for frame, pixels in enumerate(pixels_of(path, len(pieces))):
                yield *by_frame[frame], pixels


def _check_one_stack(folder: Path, slices: Sequence[Slice]) -> None:
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
                f"({first.name} and {piece.name}): one stack of slices is needed",
            )


def _is_parallel(one: Slice, other: Slice) -> bool:
    return (
        one.shape == other.shape
        and np.allclose(one.spacing_yx_mm, other.spacing_yx_mm, rtol=SAME_DIRECTION)
        and np.allclose(one.row_direction, other.row_direction, atol=SAME_DIRECTION)
        and np.allclose(one.column_direction, other.column_direction, atol=SAME_DIRECTION)
    )


def _affine_ras(folder: Path, slices: Sequence[Slice]) -> NDArray[np.float64]:
    """Voxel index (column, row, slice) to RAS mm."""
    first = slices[0]
    affine = np.eye(4)
    affine[:3, 0] = first.row_direction * first.spacing_yx_mm[1]
    affine[:3, 1] = first.column_direction * first.spacing_yx_mm[0]
    affine[:3, 2] = _step_lps_mm(folder, slices)
    affine[:3, 3] = first.position_lps_mm
    return check_geometry(folder, _LPS_TO_RAS @ affine)


def _step_lps_mm(folder: Path, slices: Sequence[Slice]) -> NDArray[np.float64]:
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
        raise _uneven(folder, slices, np.diff(positions, axis=0))
    return np.asarray(step)


def _uneven(folder: Path, slices: Sequence[Slice], steps: NDArray[np.float64]) -> ImageError:
    """Say where the steps are not equal, and, where the slices' numbers tell, how many lack."""
    usual = np.median(steps, axis=0)
    at = int(np.linalg.norm(steps - usual, axis=1).argmax())
    where = (
        f"{np.linalg.norm(steps[at]):.3g} mm between {_names_around(slices, at)}, "
        f"elsewhere {np.linalg.norm(usual):.3g} mm"
    )
    before, after = slices[at].instance, slices[at + 1].instance
    missing = 0 if before is None or after is None else abs(after - before) - 1
    if missing > 0 and np.allclose(
        steps[at], (missing + 1) * usual, atol=_POSITION_TOLERANCE * np.linalg.norm(usual)
    ):
        return ImageError(
            "series_incomplete",
            f"{folder} lacks slices: {where}, and by their InstanceNumber {missing} lie between",
        )
    return ImageError(
        "image_unsupported", f"{folder} has slices at unequal steps, slices may be missing: {where}"
    )


def _names_around(slices: Sequence[Slice], gap: int) -> str:
    return f"{slices[gap].name} and {slices[gap + 1].name}"
