"""Volumes and label maps in one file, told apart by how the file begins: NIfTI, NRRD, MetaImage."""

from __future__ import annotations

import re
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from storage.images import metaimage, nifti, nrrd
from storage.images.decoding import decoding
from storage.images.header_correction import HeaderCorrection
from storage.images.placeholders import refuse_placeholder
from storage.images.stored_grid import Reading, VolumeFormat
from storage.images.types import ImageDescription, Volume

SUFFIXES = (".nii", ".nii.gz", ".nrrd", ".nhdr", ".mha", ".mhd")

_CHANNEL = re.compile(r"(.+)#(\d+)")
_START = 64  # bytes that tell the formats apart


def with_channel(path: Path, channel: int) -> Path:
    """How records name one channel, from 0, of a file that holds several: `brain.nii.gz#2`."""
    return path.with_name(f"{path.name}#{channel}")


def split_channel(path: Path) -> tuple[Path, int | None]:
    """The file, and which of its channels a path names, if any."""
    found = _CHANNEL.fullmatch(path.name)
    if found is None or path.exists():
        return path, None
    return path.with_name(found[1]), int(found[2])


def read(path: Path, modality: str = "CT", correction: HeaderCorrection | None = None) -> Volume:
    """Load a file as a volume of a modality."""
    file, channel = split_channel(path)
    return _format(file).read(file, Reading(channel, correction=correction), modality)


def read_label_ids(
    path: Path, affine_mm: NDArray[np.float64] | None = None
) -> tuple[NDArray[np.uint16], NDArray[np.float64]]:
    """The label ids (x, y, z), C order, of a file on its RAS+ grid, and the affine in mm.

    Args:
        path: The file.
        affine_mm: Where its voxels lie, along its own axes, if its header is known to be wrong.

    Raises:
        ImageError: as for a CT; `image_unsupported`, if a value is not a whole number of 16 bits.
    """
    refuse_placeholder(path)
    return _format(path).read_label_ids(path, Reading(affine_mm=affine_mm))


def describe(
    path: Path, modality: str = "CT", correction: HeaderCorrection | None = None
) -> ImageDescription:
    """Describe a volume from its header."""
    file, channel = split_channel(path)
    return _format(file).describe(file, Reading(channel, correction=correction), modality)


def stored_affine(path: Path) -> NDArray[np.float64]:
    """Voxel index along the file's own axes to RAS mm."""
    file, channel = split_channel(path)
    return _format(file).stored_affine(file, Reading(channel))


def _format(path: Path) -> VolumeFormat:
    with decoding(path, "a volume"), path.open("rb") as stream:
        start = stream.read(_START)
    if start.startswith(nrrd.MAGIC):
        return nrrd.FORMAT
    return metaimage.FORMAT if metaimage.MAGIC.match(start) else nifti.FORMAT
