"""The atlas: the example chest CT with the reference labels of 89 structures."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cache

import numpy as np
import SimpleITK as sitk

from storage.datasets import chest_ct
from storage.images.types import Volume
from storage.inputs import artefacts
from tasks.engines.segmentation.hounsfield.body import segment_body
from tasks.engines.segmentation.hounsfield.grid import Grid
from tasks.engines.segmentation.registration.matching import MatchingImage, matching_image


@dataclass(frozen=True)
class Atlas:
    """What is registered to a scan.

    labels: uint8, a structure's id in every voxel, in the frame of `image`; 0 is background.
    content: digest of the CT's voxels.
    """

    image: MatchingImage
    labels: sitk.Image
    id_by_name: Mapping[str, int]
    content: str


def digest() -> str:
    """What the atlas is made from; no file is opened."""
    return artefacts()["chest_ct"].sha256[:16]


def content_of(volume: Volume) -> str:
    """Digest of a volume's voxels."""
    return hashlib.sha256(np.ascontiguousarray(volume.hu).data).hexdigest()


@cache
def load_atlas() -> Atlas:
    """The atlas; it is made once in a process, in about 7 s.

    Raises:
        storage.inputs.InputError: if the CT was never fetched.
    """
    volume, reference = chest_ct.load_ct(), chest_ct.load_labels()
    grid = Grid.of(volume)
    labels = sitk.GetImageFromArray(reference.ids.transpose(2, 1, 0).astype(np.uint8))
    labels.SetSpacing(volume.spacing_xyz_mm)
    image = matching_image(grid, segment_body(grid))
    ids = {name: reference.id_of(name) for name in reference.names}
    return Atlas(image, labels, ids, content_of(volume))
