"""The example chest CT and its reference segmentation (`storage/inputs.yaml`, `chest_ct`).

A full-size contrast CT with the labels of 89 structures by TotalSegmentator v2. The atlas is built
from it; tests and benchmarks measure against it.
"""

from __future__ import annotations

from pathlib import Path

from storage.images.label_map import LabelMap
from storage.images.loading import load_volume
from storage.images.types import Volume
from storage.inputs import input_path


def ct_path() -> Path:
    """The CT's NIfTI file.

    Raises:
        storage.inputs.InputError: if it was never fetched.
    """
    return input_path("chest_ct/cxr.nii.gz")


def load_ct() -> Volume:
    """The CT.

    Raises:
        storage.inputs.InputError: if it was never fetched.
    """
    return load_volume(ct_path())


def load_labels() -> LabelMap:
    """The reference segmentation, on the grid of the CT.

    Raises:
        storage.inputs.InputError: if it was never fetched.
    """
    return LabelMap.load(input_path("chest_ct/mask.nii.gz"), input_path("chest_ct/structures.csv"))
