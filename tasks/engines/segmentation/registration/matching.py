"""What is registered: a scan as a SimpleITK image of mapped Hounsfield units, with its body mask.

Frame of all images here: the axes of the scan's RAS+ grid, in mm from the center of its first
voxel. An oblique scan is not turned; the affine step of the registration does that.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import SimpleITK as sitk
from numpy.typing import NDArray

from tasks.engines.segmentation.hounsfield.grid import AIR_HU, Grid, Mask3D

MATCHING_MM = 3.0
"""Edge of the voxels in which registration works: finer ones gained no Dice in trials."""

TONES = (
    (-1000, -1.0),
    (-800, -0.9),
    (-200, -0.3),
    (-100, 0.0),
    (0, 0.35),
    (80, 0.45),
    (150, 0.5),
    (300, 0.7),
    (1000, 1.2),
)
"""Hounsfield units and the values that stand for them. Contrast medium (80 to 300 HU) is
compressed, so that scans of different phases look alike, and so is the lung, whose density changes
with breathing."""

OUTSIDE = TONES[0][1]
"""The value of air around the body."""

ANTIALIASING = 0.42
"""Sigma of the Gaussian before subsampling, over the root of the difference of the squared edges.
For cubes much larger than the voxels it leaves little of patterns that they cannot hold."""

HALF = 0.5
"""From which share of a voxel a resampled mask holds it."""


@dataclass(frozen=True)
class MatchingImage:
    """A scan ready for registration, on cubes of one size.

    tones: float32, see `TONES`. body: uint8, 1 inside the patient.
    """

    tones: sitk.Image
    body: sitk.Image

    def at(self, edge_mm: float) -> MatchingImage:
        """The same on cubes of another size."""
        body = resampled(sitk.Cast(self.body, sitk.sitkFloat32), edge_mm)
        return MatchingImage(resampled(self.tones, edge_mm), _as_mask(body))

    def scaled(self, factor: float) -> MatchingImage:
        """The same body, larger by a factor in all directions, around the frame's origin."""
        return MatchingImage(_scaled(self.tones, factor), _scaled(self.body, factor))

    def flipped(self, axis: int) -> MatchingImage:
        """The same body, turned round along one axis (0, 1, 2 for x, y, z)."""
        return MatchingImage(_flipped(self.tones, axis), _flipped(self.body, axis))


def matching_image(grid: Grid, body: Mask3D) -> MatchingImage:
    """Map a scan's Hounsfield units inside the body and resample it to cubes of 3 mm."""
    units, values = zip(*TONES, strict=True)
    tones = np.interp(np.where(body, grid.hu, AIR_HU), units, values).astype(np.float32)
    inside = resampled(image_of(body.astype(np.float32), grid), MATCHING_MM)
    return MatchingImage(resampled(image_of(tones, grid), MATCHING_MM), _as_mask(inside))


def image_of(voxels: NDArray[Any], grid: Grid) -> sitk.Image:
    """An array (x, y, z) on a scan's working grid as an image in the frame of this module."""
    image = sitk.GetImageFromArray(np.ascontiguousarray(voxels.transpose(2, 1, 0)))
    image.SetSpacing(grid.spacing_mm)
    # The center of the first working voxel is that of a block of scan voxels.
    edges = np.array(grid.spacing_mm) / grid.factors
    image.SetOrigin(((np.array(grid.factors) - 1) / 2 * edges).tolist())
    return image


def array_of(image: sitk.Image) -> NDArray[Any]:
    """The voxels (x, y, z) of an image."""
    array: NDArray[Any] = sitk.GetArrayFromImage(image).transpose(2, 1, 0)
    return array


def masked(image: sitk.Image) -> Mask3D:
    """The voxels (x, y, z) of an image that are not 0."""
    mask: Mask3D = array_of(image) != 0
    return mask


def resampled(image: sitk.Image, edge_mm: float) -> sitk.Image:
    """An image of real values on cubes that cover it, smoothed where the cubes are larger."""
    spacing, size = np.array(image.GetSpacing()), np.array(image.GetSize())
    count = np.maximum(1, np.round(size * spacing / edge_mm)).astype(int)
    blur = ANTIALIASING * np.sqrt(np.maximum(edge_mm**2 - spacing**2, 0))
    if blur.any():
        # The filter takes no sigma of 0.
        image = sitk.SmoothingRecursiveGaussian(image, np.maximum(blur, 1e-3).tolist())
    cubes = sitk.Image(count.tolist(), sitk.sitkUInt8)
    cubes.SetSpacing([edge_mm] * 3)
    cubes.SetOrigin((np.array(image.GetOrigin()) + (edge_mm - spacing) / 2).tolist())
    sampler = sitk.ResampleImageFilter()
    sampler.SetReferenceImage(cubes)
    sampler.SetInterpolator(sitk.sitkLinear)
    # Cubes may reach half an edge beyond the scan.
    sampler.SetUseNearestNeighborExtrapolator(True)
    return sampler.Execute(image)


def _as_mask(share: sitk.Image) -> sitk.Image:
    return sitk.Cast(share > HALF, sitk.sitkUInt8)


def _scaled(image: sitk.Image, factor: float) -> sitk.Image:
    larger = sitk.Image(image)
    larger.SetSpacing(_times(image.GetSpacing(), factor))
    larger.SetOrigin(_times(image.GetOrigin(), factor))
    return larger


def _times(values: Sequence[float], factor: float) -> list[float]:
    return [value * factor for value in values]


def _flipped(image: sitk.Image, axis: int) -> sitk.Image:
    turned = sitk.Flip(image, [each == axis for each in range(3)])
    turned.SetDirection(image.GetDirection())
    turned.SetOrigin(image.GetOrigin())
    return turned
