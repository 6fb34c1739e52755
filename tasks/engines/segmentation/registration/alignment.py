"""Registration of the atlas to a scan: translation and size, then affine, then deformable.

1. Translation and size: masked normalized cross-correlation by FFT over all translations (Padfield,
   IEEE TIP 21(5), 2012), for a few sizes.
2. Affine: correlation of the mapped Hounsfield units, both bodies as masks. Mutual information of
   raw units made the result worse than its start in trials.
3. Deformable: fast symmetric-forces demons, coarse to fine (Vercauteren et al., NeuroImage 45,
   2009).

Every result maps a point of the scan to the point of the atlas that belongs there, both in mm.
Settings were chosen on two CTs of other patients than the atlas's (`benchmarks.registration`).
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import SimpleITK as sitk
from numpy.typing import NDArray

from tasks.engines.segmentation.hounsfield.grid import Grid, Labels
from tasks.engines.segmentation.registration.errors import CannotRegisterError
from tasks.engines.segmentation.registration.matching import (
    MATCHING_MM,
    MatchingImage,
    array_of,
    image_of,
    masked,
    resampled,
)

START_MM = 8.0
"""Edge of the voxels in which all translations are tried."""

SIZES = (0.85, 0.92, 1.0, 1.08, 1.15)
"""Sizes of the atlas patient that are tried: those of most adults."""

LEAST_OVERLAP = 0.35
"""Share of the smaller body that must lie in the other one: a part of the trunk suffices."""

AFFINE_MM, AFFINE_SAMPLES, AFFINE_ITERATIONS = 6.0, 0.1, 120
"""Edge of the voxels, share of them that is compared, and steps of at most `AFFINE_STEP` mm."""

AFFINE_STEP, AFFINE_LAST_STEP = 1.0, 0.01
"""Longest and shortest step, in mm of the displacement that it causes."""

SEED = 1
"""Of the sampling: the same scan gives the same masks."""

LEAST_VOXELS = 4
"""Fewest working voxels along an axis: demons smooth over several."""


@dataclass(frozen=True)
class DemonsLevel:
    """Demons in voxels of one size; sigma: Gaussian smoothing of the field, in voxels."""

    edge_mm: float
    iterations: int
    sigma: float


COARSE = (
    DemonsLevel(16.0, 100, 1.2),
    DemonsLevel(12.0, 100, 1.2),
    DemonsLevel(8.0, 100, 1.0),
    DemonsLevel(6.0, 100, 1.0),
)
"""Large displacements: organs take their places."""

FINE = (DemonsLevel(4.0, 60, 0.8), DemonsLevel(MATCHING_MM, 40, 0.7))
"""Surfaces. What these levels still move far was not certain of its place (`confidence`)."""


@dataclass(frozen=True)
class Start:
    """The best translation and size; correlation: of the mapped units where the bodies overlap."""

    transform: sitk.AffineTransform
    size: float
    correlation: float


@dataclass(frozen=True)
class Alignment:
    """The registration of the atlas to a scan.

    coarse: after the coarse levels of demons; final: after all.
    affine_correlation, correlation: of the mapped units inside the scan's body, where the atlas has
        a value, before and after the demons.
    """

    coarse: sitk.Transform
    final: sitk.Transform
    affine_correlation: float
    correlation: float


def find_start(
    scan: MatchingImage, atlas: MatchingImage, sizes: tuple[float, ...] = SIZES
) -> Start:
    """Try all translations of the atlas in several sizes.

    Raises:
        CannotRegisterError: if the scan shows no body.
    """
    scan = scan.at(START_MM)
    starts = [_start(scan, atlas.scaled(size).at(START_MM), size) for size in sizes]
    return max(starts, key=lambda start: start.correlation)


def align(scan: MatchingImage, atlas: MatchingImage, start: Start) -> Alignment:
    """Deform the atlas to a scan.

    Raises:
        CannotRegisterError: if the optimization fails, as it does without a common region.
    """
    if min(scan.tones.GetSize()) * MATCHING_MM < LEAST_VOXELS * COARSE[0].edge_mm:
        raise CannotRegisterError("registration_failed", "the scan is too thin to be registered")
    try:
        affine = _affine(scan.at(AFFINE_MM), atlas.at(AFFINE_MM), start.transform)
        before = correlation(scan, atlas, affine)
        coarse_field = _demons(scan.tones, atlas.tones, affine, COARSE)
        final_field = _demons(scan.tones, atlas.tones, affine, FINE, coarse_field)
    except RuntimeError as error:  # all that ITK raises
        last = str(error).strip().splitlines()[-1]
        raise CannotRegisterError(
            "registration_failed", f"the atlas could not be fitted: {last}"
        ) from error
    coarse, final = (_composed(affine, field) for field in (coarse_field, final_field))
    return Alignment(coarse, final, before, correlation(scan, atlas, final))


def correlation(scan: MatchingImage, atlas: MatchingImage, transform: sitk.Transform) -> float:
    """Correlation of the mapped units inside the scan's body where the atlas has a value."""
    moved = array_of(warped(atlas.tones, scan.tones, transform))
    both = masked(scan.body) & masked(field_of_view(atlas.tones, scan.tones, transform))
    if both.sum() < LEAST_VOXELS**3:
        return 0.0
    return float(np.corrcoef(array_of(scan.tones)[both], moved[both])[0, 1])


def warped(
    image: sitk.Image,
    onto: sitk.Image,
    transform: sitk.Transform,
    interpolator: int = sitk.sitkLinear,
) -> sitk.Image:
    """An image of the atlas on the grid of a scan; 0 outside of the atlas."""
    return sitk.Resample(image, onto, transform, interpolator, 0.0, image.GetPixelID())


def warped_labels(labels: sitk.Image, grid: Grid, transform: sitk.Transform) -> Labels:
    """The atlas's labels on the working grid of a scan."""
    onto = image_of(np.zeros(grid.hu.shape, np.uint8), grid)
    found: Labels = array_of(warped(labels, onto, transform, sitk.sitkNearestNeighbor)).astype(
        np.int32
    )
    return found


def field_of_view(image: sitk.Image, onto: sitk.Image, transform: sitk.Transform) -> sitk.Image:
    """1 where the atlas has a value, on the grid of a scan."""
    whole = sitk.Image(image.GetSize(), sitk.sitkUInt8) + 1
    whole.CopyInformation(image)
    return warped(whole, onto, transform, sitk.sitkNearestNeighbor)


def _start(scan: MatchingImage, atlas: MatchingImage, size: float) -> Start:
    bodies = [sitk.Cast(each.body, sitk.sitkFloat32) for each in (scan, atlas)]
    smaller = min(masked(body).sum() for body in bodies)
    if not smaller:
        raise CannotRegisterError("registration_failed", "the scan shows no body")
    images = [sitk.Image(each) for each in (scan.tones, atlas.tones, *bodies)]
    for image in images:  # the filter wants one frame; the lag below takes it into account
        image.SetOrigin((0.0, 0.0, 0.0))
    correlate = sitk.MaskedFFTNormalizedCorrelationImageFilter()
    correlate.SetRequiredNumberOfOverlappingPixels(int(LEAST_OVERLAP * smaller))
    values = array_of(correlate.Execute(*images))
    best = np.unravel_index(int(values.argmax()), values.shape)
    lag = (np.array(best) - (np.array(atlas.tones.GetSize()) - 1)) * START_MM
    shift = lag + scan.tones.GetOrigin() - np.array(atlas.tones.GetOrigin())
    transform = sitk.AffineTransform(3)
    transform.SetMatrix((np.eye(3) / size).ravel().tolist())
    transform.SetTranslation((-shift / size).tolist())
    return Start(transform, size, float(values[best]))


def _affine(
    scan: MatchingImage, atlas: MatchingImage, start: sitk.AffineTransform
) -> sitk.Transform:
    method = sitk.ImageRegistrationMethod()
    method.SetMetricAsCorrelation()
    method.SetMetricSamplingStrategy(method.RANDOM)
    method.SetMetricSamplingPercentage(AFFINE_SAMPLES, SEED)
    method.SetMetricFixedMask(scan.body)
    method.SetMetricMovingMask(atlas.body)
    method.SetOptimizerAsRegularStepGradientDescent(
        AFFINE_STEP, AFFINE_LAST_STEP, AFFINE_ITERATIONS
    )
    method.SetOptimizerScalesFromPhysicalShift()
    method.SetShrinkFactorsPerLevel([2, 1])
    method.SetSmoothingSigmasPerLevel([1, 0])
    method.SetInterpolator(sitk.sitkLinear)
    method.SetInitialTransform(sitk.AffineTransform(start), inPlace=False)
    return method.Execute(scan.tones, atlas.tones)


def _demons(
    scan: sitk.Image,
    atlas: sitk.Image,
    affine: sitk.Transform,
    levels: tuple[DemonsLevel, ...],
    field: sitk.Image | None = None,
) -> sitk.Image:
    """The field of displacements in mm, to be applied to a point of the scan before the affine."""
    for level in levels:
        fixed = resampled(scan, level.edge_mm)
        seen = masked(field_of_view(atlas, fixed, affine))
        moved = np.where(seen, array_of(warped(atlas, fixed, affine)), array_of(fixed))
        # Beyond the atlas the two are equal, so that no force acts there.
        moving = _on_grid(moved, fixed)
        demons = sitk.FastSymmetricForcesDemonsRegistrationFilter()
        demons.SetNumberOfIterations(level.iterations)
        demons.SetStandardDeviations(level.sigma)
        if field is None:
            field = demons.Execute(fixed, moving)
        else:
            begun = sitk.Resample(
                field, fixed, sitk.Transform(), sitk.sitkLinear, 0.0, sitk.sitkVectorFloat64
            )
            field = demons.Execute(fixed, moving, begun)
    if field is None:
        raise ValueError("no levels")
    return field


def _on_grid(voxels: NDArray[np.float32], grid: sitk.Image) -> sitk.Image:
    image = sitk.GetImageFromArray(np.ascontiguousarray(voxels.transpose(2, 1, 0)))
    image.CopyInformation(grid)
    return image


def _composed(affine: sitk.Transform, field: sitk.Image) -> sitk.Transform:
    # A displacement transform takes its image over, so it gets a copy.
    return sitk.CompositeTransform([affine, sitk.DisplacementFieldTransform(sitk.Image(field))])
