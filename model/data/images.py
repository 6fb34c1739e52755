"""From an image file to the model's input, and from the model's boxes and masks to the file's grid.

Three frames meet here. All boxes are half-open, and voxel i covers [i, i + 1).

- *file* and *array* (depth, height, width): see `storage.images.file_grid`;
- *model*: the array's foreground, resized to the token budget and padded at the far end.

Section 4.3 of the paper leaves the sizes open; intensities and the crop follow the released code.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.nn.functional import interpolate, pad

from model.config import VividMedConfig
from model.data.inputs import ModelImage
from model.data.token_grid import TokenGrid, plan
from storage.images.file_grid import RAS_OF_ARRAY, FileGrid, Triple
from storage.images.loading import is_volume, load_radiograph, load_volume
from storage.images.types import Radiograph, Volume
from storage.masks import mask_box

_CLIPPED_SHARE = 0.00134990  # Φ(−3): the share of a normal distribution below -3 sigma
_HU_OFFSET = 32768  # added to int16 values to make them indices of a histogram
_SLAB = 16  # slices upsampled at a time: a float copy of a whole volume would take gigabytes
_HALF_FULL = 0.5  # share of a resized voxel from which a mask includes it


@dataclass(frozen=True)
class SourceImage:
    """An image as read from its file.

    pixels: float32 (1, depth, height, width), 0 to 1.
    grid: the grid of its file.
    range_hu: Hounsfield units of pixel values 0 and 1; None for what is no CT.
    """

    pixels: NDArray[np.float32]
    grid: FileGrid
    range_hu: tuple[float, float] | None = None


@dataclass(frozen=True)
class Frame:
    """The transform between an image's file and the prepared image.

    source: the grid of the file.
    crop: the region of the array, (depth, height, width), that was prepared.
    tokens: how the region was resized and padded.
    """

    source: FileGrid
    crop: tuple[slice, slice, slice]
    tokens: TokenGrid

    def boxes_to_file(self, boxes: Tensor) -> NDArray[np.float64]:
        """Map the model's boxes to the file's grid, clipped to the image.

        Args:
            boxes: (n, 6), center and size as (z, y, x, d, h, w) in shares of the padded image.

        Returns:
            (n, 2, 3), lowest and highest corner along the file's axes, in voxels, half-open.
        """
        center_size = boxes.detach().cpu().double().numpy().reshape(-1, 2, 3)
        center, half = center_size[:, 0], center_size[:, 1] / 2
        corners = np.stack([center - half, center + half], axis=1)
        corners = corners * self.tokens.size / self._scale + self._start
        return self.source.boxes_from_array(np.clip(corners, 0, self.source.array_shape))

    def boxes_to_model(self, boxes: NDArray[np.float64]) -> Tensor:
        """The inverse of `boxes_to_file`; float32, clipped to the prepared part."""
        corners = self.source.boxes_to_array(np.asarray(boxes, np.float64).reshape(-1, 2, 3))
        corners = np.clip((corners - self._start) * self._scale, 0, self.tokens.content)
        low, high = corners[:, 0] / self.tokens.size, corners[:, 1] / self.tokens.size
        return torch.from_numpy(np.hstack([(low + high) / 2, high - low])).float()

    def mask_to_file(self, logits: Tensor) -> NDArray[np.bool_]:
        """Map a mask to the file's grid: logits are interpolated linearly, then thresholded at 0.

        Args:
            logits: (depth, height, width) of the padded image.
        """
        depth, height, width = (part.stop - part.start for part in self.crop)
        content = logits.detach().float()[tuple(slice(n) for n in self.tokens.content)]
        planes = interpolate(
            content[None, None], (depth, *content.shape[1:]), mode="trilinear"
        ).squeeze(0)
        array = np.zeros(self.source.array_shape, np.bool_)
        inside = array[self.crop]
        for start in range(0, depth, _SLAB):
            slab = interpolate(planes[:, start : start + _SLAB], (height, width), mode="bilinear")
            inside[start : start + _SLAB] = (slab > 0).squeeze(0).cpu().numpy()
        return self.source.from_array(array)

    def mask_to_model(self, mask: NDArray[np.bool_]) -> Tensor:
        """Map a mask on the file's grid to the prepared image: voxels at least half full."""
        part = self.source.to_array(mask)[self.crop].astype(np.float32)
        resized = _resized(torch.from_numpy(part)[None], self.tokens.content) >= _HALF_FULL
        return _padded(resized, self.tokens.size).squeeze(0)

    @property
    def _start(self) -> NDArray[np.float64]:
        return np.array([float(part.start) for part in self.crop])

    @property
    def _scale(self) -> NDArray[np.float64]:
        extent = np.array([float(part.stop - part.start) for part in self.crop])
        return np.asarray(self.tokens.content) / extent


def read_image(path: Path, modality: str | None = None) -> SourceImage:
    """Read a radiograph (DICOM, PNG, JPEG) or a volume (NIfTI, or the folder of a DICOM series).

    Args:
        path: as records name it.
        modality: of a volume, as records say it; a CT where they do not.

    Raises:
        ImageError: if the file is missing, damaged or of another kind.
    """
    if is_volume(path):
        return volume_image(load_volume(path, modality or "CT"))
    return radiograph_image(load_radiograph(path))


def radiograph_image(radiograph: Radiograph) -> SourceImage:
    """Convert a radiograph to an image of one slice."""
    pixels = radiograph.pixels[None, None]
    return SourceImage(pixels, FileGrid(pixels.shape[1:]))


def volume_image(volume: Volume) -> SourceImage:
    """Convert a volume to axes superior, right, anterior (SRA), clipped to its ±3 sigma quantiles.

    A DICOM series has no single file; its grid is the RAS+ grid of the volume.
    """
    is_ct = volume.modality == "CT"
    low, high = _clip_bounds(volume.hu)
    pixels = volume.hu.transpose(RAS_OF_ARRAY).astype(np.float32)[None]
    np.clip(pixels, low, high, out=pixels)
    pixels -= low
    pixels /= (high - low) or 1  # 1 for an image of one value
    return SourceImage(pixels, FileGrid.of(volume), (low, high) if is_ct else None)


def prepare(
    source: SourceImage, config: VividMedConfig, rng: np.random.Generator | None = None
) -> tuple[ModelImage, Frame]:
    """Crop, resize and pad an image within the token budget of the model.

    Args:
        source: the image.
        config: has the patch size, the pooling and the token budget.
        rng: varies the depth of a patch; for training.
    """
    crop = _foreground(source.pixels[0])
    part = torch.from_numpy(source.pixels[:, *crop])
    depth, height, width = part.shape[1:]
    grid = plan(
        (depth, height, width),
        patch_size=config.vision.patch_size,
        pool=config.vision.pool,
        max_tokens=config.max_vision_tokens,
        max_depth_tokens=config.max_depth_tokens,
        rng=rng,
    )
    pixels = _padded(_resized(part, grid.content), grid.size)
    # The encoders were pretrained on three channels.
    return ModelImage(pixels.expand(3, -1, -1, -1), grid), Frame(source.grid, crop, grid)


def _clip_bounds(values: NDArray[np.int16] | NDArray[np.float32]) -> tuple[float, float]:
    """The ±3 sigma quantiles of the voxels above the minimum, as order statistics.

    If only one value is above the minimum, the minimum is the lower bound.
    """
    if values.dtype == np.int16:
        return _clip_bounds_hu(values.astype(np.int16, copy=False))
    lowest = values.min()
    above = values[values > lowest]
    if not len(above):
        return float(lowest), float(lowest)
    low, high = np.partition(above, ranks := [rank - 1 for rank in _ranks(len(above))])[ranks]
    return float(low if low < high else lowest), float(high)


def _ranks(total: int) -> list[int]:
    """Which of so many sorted voxels, from 1, are the bounds."""
    return [max(1, round(share * total)) for share in (_CLIPPED_SHARE, 1 - _CLIPPED_SHARE)]


def _clip_bounds_hu(hu: NDArray[np.int16]) -> tuple[float, float]:
    """The same of whole numbers, from a histogram: a sorted copy of a CT would take gigabytes."""
    counts = np.zeros(2 * _HU_OFFSET, np.int64)
    for plane in hu:
        counts += np.bincount(plane.ravel().astype(np.int64) + _HU_OFFSET, minlength=len(counts))
    lowest = int(np.flatnonzero(counts)[0])
    above = counts.cumsum() - counts[lowest]
    total = int(above[-1])
    low, high = np.searchsorted(above, _ranks(total)) if total else (lowest, lowest)
    return float(low if low < high else lowest) - _HU_OFFSET, float(high) - _HU_OFFSET


def _foreground(pixels: NDArray[np.float32]) -> tuple[slice, slice, slice]:
    """The bounding box of all pixels above the lowest value; the whole image if there are none."""
    depth, height, width = mask_box(pixels > 0)
    if depth.start == depth.stop:
        depth, height, width = (slice(0, n) for n in pixels.shape)
    return depth, height, width


def _resized(image: Tensor, size: Triple) -> Tensor:
    """Resize (channel, depth, height, width) linearly, with antialiasing."""
    depth, height, width = size
    if image.shape[2:] != size[1:]:
        image = interpolate(image, (height, width), mode="bilinear", antialias=True)
    if image.shape[1] != depth:
        columns = interpolate(
            image.flatten(2)[None], (depth, height * width), mode="bilinear", antialias=True
        )
        image = columns.squeeze(0).unflatten(2, (height, width))
    return image


def _padded(image: Tensor, size: Triple) -> Tensor:
    missing = [n - have for n, have in zip(size, image.shape[1:], strict=True)]
    return pad(image, [edge for n in reversed(missing) for edge in (0, n)])
