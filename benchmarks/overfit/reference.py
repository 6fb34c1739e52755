"""The full-size chest CT and what is known of it: 89 reference structures and a nodule.

Everything is on the CT's RAS+ grid (x, y, z); `storage/inputs.yaml` says where the files are from.
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
_NODULE_CENTRE_RAS_MM = (-57.0, -86.0, -115.0)
_NODULE_CUBE_MM = 32.0
_NODULE_ABOVE_HU = -100


class Reference:
    """The CT with its label map."""

    def __init__(self, volume: Volume, labels: LabelMap) -> None:
        self.volume = volume
        self._labels = labels

    @classmethod
    def load(cls, report: Callable[[str], None] = lambda _: None) -> Reference:
        """Read the CT and its reference, fetching them if they are not there.

        Raises:
            storage.inputs.InputError: if they cannot be fetched.
        """
        fetch(["chest_ct"], report)
        return cls(chest_ct.load_ct(), chest_ct.load_labels())

    def union(self, labels: Iterable[str]) -> Voxels:
        """The voxels of any of the labels; `nodule` is one of them.

        Raises:
            KeyError: for a label that the reference does not have.
        """
        names = set(labels)
        mask = self._labels.mask(*names - {NODULE})
        if NODULE in names:
            mask |= nodule(self.volume)
        return mask


def nodule(volume: Volume) -> Voxels:
    """The solid nodule of the left lower lobe, which the reference leaves out.

    What is denser than -100 HU in a cube around its published centre, without the vessels that an
    opening by a cross removes.
    """
    place = np.linalg.inv(volume.affine) @ (*_NODULE_CENTRE_RAS_MM, 1.0)
    centre, half = place[:3], _NODULE_CUBE_MM / 2 / np.asarray(volume.spacing_xyz_mm)
    low, high = np.rint(centre - half).astype(int), np.rint(centre + half).astype(int) + 1
    cube = tuple(slice(a, b) for a, b in zip(low, high, strict=True))
    parts, _ = ndimage.label(ndimage.binary_opening(volume.hu[cube] > _NODULE_ABOVE_HU))
    mask = np.zeros(volume.hu.shape, dtype=bool)
    mask[cube] = parts == parts[tuple(np.rint(centre).astype(int) - low)]
    return mask
