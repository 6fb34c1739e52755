"""The full-size chest CT with its references: 89 structures and a nodule.

All masks are on the CT's RAS+ grid (x, y, z); `storage/inputs.yaml` has the sources of the files.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

from storage.datasets import chest_ct
from storage.images.label_map import LabelMap
from storage.images.types import Volume
from storage.inputs import fetch

Voxels = NDArray[np.bool_]

NODULE = "nodule"
_NODULE_CENTER_RAS_MM = (-57.0, -86.0, -115.0)
_NODULE_CUBE_MM = 32.0  # edge of the cube that is searched
_NODULE_ABOVE_HU = -100  # separates solid tissue from lung, about -850 HU


class Reference:
    """The CT with its label map."""

    def __init__(self, volume: Volume, labels: LabelMap) -> None:
        self.volume = volume
        self._labels = labels

    @classmethod
    def load(cls, report: Callable[[str], None] = lambda _: None) -> Reference:
        """Read the CT and its label map, after fetching them if needed.

        Raises:
            storage.inputs.InputError: if they cannot be fetched.
        """
        fetch(["chest_ct"], report)
        return cls(chest_ct.load_ct(), chest_ct.load_labels())

    def union(self, labels: Iterable[str]) -> Voxels:
        """The voxels of any of the labels; `nodule` is one of them.

        Raises:
            KeyError: for an unknown label.
        """
        names = set(labels)
        mask = self._labels.mask(*names - {NODULE})
        if NODULE in names:
            mask |= nodule(self.volume)
        return mask


def nodule(volume: Volume) -> Voxels:
    """The solid nodule of the left lower lobe, which the label map lacks.

    The voxels above -100 HU in a cube around its published center that remain connected to the
    center after a morphological opening with a cross, which removes vessels.
    """
    center_voxel = np.linalg.inv(volume.affine) @ (*_NODULE_CENTER_RAS_MM, 1.0)
    center, half = center_voxel[:3], _NODULE_CUBE_MM / 2 / np.asarray(volume.spacing_xyz_mm)
    low, high = np.rint(center - half).astype(int), np.rint(center + half).astype(int) + 1
    cube = tuple(slice(a, b) for a, b in zip(low, high, strict=True))
    parts, _ = ndimage.label(ndimage.binary_opening(volume.hu[cube] > _NODULE_ABOVE_HU))
    mask = np.zeros(volume.hu.shape, dtype=bool)
    mask[cube] = parts == parts[tuple(np.rint(center).astype(int) - low)]
    return mask
