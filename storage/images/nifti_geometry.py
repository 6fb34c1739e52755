"""Where the voxels of a NIfTI file lie, checked against all that its header says of it.

A header gives the voxel size twice or three times: `pixdim`, the columns of the sform, and the
qform, which turns and moves voxels of size `pixdim`. Readers differ in which they believe (nibabel
takes the sform, ITK the size from `pixdim`), so a file whose statements differ is read in two
sizes by two programs. Such files come from a matrix of ones beside a right `pixdim`, from a
resampling that changed one of them, and from converters (dcm2niix on overlapping slices).

The sform counts where there is one, as in nibabel. Lengths are in the unit of `xyzt_units`.
"""

from __future__ import annotations

from itertools import product
from pathlib import Path

import nibabel as nib
import numpy as np
from nibabel.orientations import io_orientation
from numpy.typing import NDArray

from storage.images.types import ImageError
from storage.images.voxels import check_directions, check_geometry

_MM_PER_UNIT = {1: 1000.0, 2: 1.0, 3: 0.001}  # metre, mm, micron
_UNIT_BITS = 7  # of xyzt_units; the others are the unit of time

_SAME_SIZE = 0.02
"""Relative. Writers round 0.703 mm to 0.7; two percent of a side are six of a volume."""


def affine_mm(
    path: Path, header: nib.Nifti1Header, shape: tuple[int, int, int]
) -> NDArray[np.float64]:
    """The voxel index to RAS mm; an unknown unit is taken for mm.

    Raises:
        ImageError: `geometry_missing`, if there is neither qform nor sform, or what there is
            places no voxel; `geometry_inconsistent`, if statements differ or no CT has such voxels.
    """
    has_qform, has_sform = _forms(path, header)
    to_mm = np.diag([*[_MM_PER_UNIT.get(int(header["xyzt_units"]) & _UNIT_BITS, 1.0)] * 3, 1.0])
    if not has_sform:
        return check_geometry(path, to_mm @ _qform(path, header))
    affine = check_geometry(path, to_mm @ header.get_sform())
    _check_sizes(path, affine, header, to_mm[0, 0])
    if has_qform:
        _check_places(path, affine, to_mm @ _qform(path, header), header, shape)
    return affine


def affine_of_spacing(
    path: Path, header: nib.Nifti1Header, spacing_mm: tuple[float, float, float]
) -> NDArray[np.float64]:
    """The voxel index to RAS mm, with the header's directions and origin and another spacing.

    Args:
        path: names the file in errors.
        header: its statements on voxel size count for nothing.
        spacing_mm: between voxels along the file's axes.

    Raises:
        ImageError: as `affine_mm`.
    """
    _, has_sform = _forms(path, header)
    affine = header.get_sform() if has_sform else _qform(path, header)
    affine = np.array(check_directions(path, affine))
    affine[:3, :3] *= np.asarray(spacing_mm) / np.linalg.norm(affine[:3, :3], axis=0)
    return check_geometry(path, affine)


def _forms(path: Path, header: nib.Nifti1Header) -> tuple[bool, bool]:
    """Whether there is a qform, and an sform."""
    has_qform, has_sform = header["qform_code"] > 0, header["sform_code"] > 0
    if not (has_qform or has_sform):
        raise ImageError(
            "geometry_missing",
            f"{path} has neither a qform nor an sform: where its voxels lie is not known",
        )
    return has_qform, has_sform


def _qform(path: Path, header: nib.Nifti1Header) -> NDArray[np.float64]:
    try:
        return np.asarray(header.get_qform())
    except ValueError as error:
        raise ImageError(
            "geometry_inconsistent", f"{path} has a qform whose quaternion is no rotation"
        ) from error


def _check_sizes(
    path: Path, affine: NDArray[np.float64], header: nib.Nifti1Header, unit_mm: float
) -> None:
    """Compare the columns of the sform with `pixdim`.

    On the sheared grid of a tilted gantry, `pixdim` may be the distance of the planes instead.
    """
    stated = np.abs(header["pixdim"][1:4].astype(np.float64))
    if header["qform_code"] == 0 and (stated == 1).all():
        return  # nobody filled it in: nibabel's own default, and what it makes of zeros
    stated *= unit_mm
    lengths = np.linalg.norm(affine[:3, :3], axis=0)
    distances = 1 / np.linalg.norm(np.linalg.inv(affine[:3, :3]), axis=1)
    low, high = distances * (1 - _SAME_SIZE), lengths * (1 + _SAME_SIZE)
    # Written so that NaN does not pass.
    if not ((low <= stated) & (stated <= high)).all():
        raise ImageError(
            "geometry_inconsistent",
            f"{path} gives two voxel sizes: {_sizes(lengths)} mm by its sform, "
            f"{_sizes(stated)} mm by its pixdim: write both from the original scan",
        )


def _check_places(
    path: Path,
    affine: NDArray[np.float64],
    qform: NDArray[np.float64],
    header: nib.Nifti1Header,
    shape: tuple[int, int, int],
) -> None:
    """Compare where the sform and the qform put the corners of the volume.

    With one code they name one space, and may differ by a voxel. A qform cannot shear: on the grid
    of a tilted gantry it may differ by as much as the shear moves. With two codes (scanner and
    aligned, or a template) they name two spaces, in which the axes must still run the same way.
    """
    lengths = np.linalg.norm(affine[:3, :3], axis=0)
    if header["qform_code"] == header["sform_code"]:
        ends = np.array(list(product(*((0, size - 1) for size in shape))))
        apart = ends @ (affine - qform)[:3, :3].T + (affine - qform)[:3, 3]
        directions = affine[:3, :3] / lengths
        shear = np.abs(directions.T @ directions - np.eye(3)).max()
        allowed_mm = lengths.max() + shear * np.linalg.norm(lengths * shape)
        distance_mm = np.linalg.norm(apart, axis=1).max()
        agree = distance_mm <= allowed_mm
        how = f"by up to {distance_mm:.3g} mm"
    else:
        agree = np.isfinite(qform).all() and bool(
            (io_orientation(affine) == io_orientation(qform)).all()
        )
        how = "in the direction of their axes"
    if not agree:
        raise ImageError(
            "geometry_inconsistent",
            f"{path} has an sform and a qform that differ {how}: "
            "remove the wrong one, or write both from the original scan",
        )


def _sizes(lengths: NDArray[np.float64]) -> str:
    return " × ".join(f"{length:.4g}" for length in lengths)
