"""Masks of the findings of a CT report in one NIfTI file, a channel each (ReXGroundingCT).

The array is (finding, x, y, z) along the axes of the CT's own file; a voxel of a channel holds 0 or
the number of the finding's instance, from 1. The file's affine is the identity: voxels are aligned
with the CT by their index alone.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import nibabel as nib
import numpy as np
from numpy.typing import NDArray

from storage.images.decoding import decoding
from storage.images.limits import check_voxels
from storage.images.nifti import read_grid
from storage.images.types import ImageError
from storage.images.voxels import allocate_ras
from storage.records import Mask


def read_finding_masks(path: Path, ct: Path) -> Iterator[tuple[int, int, Mask]]:
    """Channel, instance from 0, and mask on the RAS+ grid of the CT, of each finding's instances.

    One slice of the file and one mask are in memory at once, beside the places of set voxels.

    Raises:
        ImageError: if a file cannot be read, or the masks do not have the shape of the CT.
    """
    if not ct.exists():
        raise ImageError("image_not_found", f"{ct} is not there, so the masks have no place")
    shape, affine = read_grid(ct)
    places, instances = _set_voxels(path, shape)
    for channel, instance in sorted(set(zip(places[0].tolist(), instances.tolist(), strict=True))):
        chosen = (places[0] == channel) & (instances == instance)
        ras, in_file, ras_affine = allocate_ras(shape, affine, np.bool_)
        ras[...] = False
        in_file[tuple(axis[chosen] for axis in places[1:])] = True
        yield channel, instance - 1, Mask.of(ras, ras_affine)


def _set_voxels(
    path: Path, shape: tuple[int, int, int]
) -> tuple[NDArray[np.int32], NDArray[np.int32]]:
    """Channel, x, y and z (4, n) of the voxels that are set, and their instances (n)."""
    with decoding(path, "NIfTI"):
        image: Any = nib.Nifti1Image.from_filename(path, mmap=False, keep_file_open=True)
        found = tuple(int(size) for size in image.shape)
        if len(found) != 4 or found[1:] != shape:
            raise ImageError(
                "mask_wrong_shape",
                f"{path} has the shape {found}, the CT has {shape}: a channel a finding is needed",
            )
        check_voxels(path, shape)
        places, instances = [np.empty((4, 0), np.int32)], [np.empty(0, np.int32)]
        for z in range(shape[2]):
            plane = np.asanyarray(image.dataobj[..., z]).astype(np.int32)
            channel, x, y = np.nonzero(plane)
            places.append(np.array([channel, x, y, np.full_like(x, z)], np.int32))
            instances.append(plane[channel, x, y])
        return np.concatenate(places, axis=1), np.concatenate(instances)
