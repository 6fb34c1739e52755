"""What holds for every image that is accepted, whatever its file."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

from storage.images.limits import image_limits
from storage.images.loading import describe_image, is_volume, load_radiograph, load_volume
from storage.images.types import ImageDescription, ImageError, Radiograph, Volume

_SIZES_MM = (0.1, 20)
"""Of voxels, smallest and largest."""


def read_radiograph(path: Path) -> Radiograph:
    """Load a radiograph that is as it is described."""
    described, film = _described_and_loaded(path, load_radiograph)
    assert film.pixels.dtype == np.float32
    assert film.pixels.shape == described.shape, "it is not as large as described"
    assert 0 < film.pixels.size <= image_limits().max_pixels
    assert np.isfinite(film.pixels).all(), "it has pixels that are not finite"
    assert film.pixels.min() >= 0, "it has pixels below 0"
    assert film.pixels.max() <= 1, "it has pixels above 1"
    assert film.spacing_yx_mm == described.spacing_mm
    if film.spacing_yx_mm is not None:
        assert np.isfinite(film.spacing_yx_mm).all()
        assert min(film.spacing_yx_mm) > 0, "its spacing is not positive"
    return film


def read_volume(path: Path) -> Volume:
    """Load a volume that is as it is described."""
    is_volume(path)
    described, volume = _described_and_loaded(path, load_volume)
    assert volume.hu.dtype == np.int16
    assert volume.hu.shape == described.shape, "it is not as large as described"
    assert 0 < volume.hu.size <= image_limits().max_voxels
    assert np.isfinite(volume.affine).all(), "its affine is not finite"
    assert described.spacing_mm is not None
    assert np.allclose(volume.spacing_xyz_mm, described.spacing_mm)
    smallest_mm, largest_mm = _SIZES_MM
    sizes_mm = volume.spacing_xyz_mm
    assert smallest_mm <= min(sizes_mm), f"a voxel of {sizes_mm} mm"
    assert max(sizes_mm) <= largest_mm, f"a voxel of {sizes_mm} mm"
    return volume


def _described_and_loaded(path: Path, load: Callable[[Path], Any]) -> tuple[ImageDescription, Any]:
    try:
        described = describe_image(path)
    except ImageError as error:
        refusal = error
    else:
        return described, load(path)
    assert str(path) in refusal.detail, f"it does not say which file: {refusal}"
    assert not _is_loaded(path, load), f"it is loaded, though not described: {refusal}"
    raise refusal


def _is_loaded(path: Path, load: Callable[[Path], Any]) -> bool:
    try:
        load(path)
    except ImageError:
        return False
    return True
