"""Frontal radiographs projected from a CT, and structure outlines on the same pixels.

The attenuation along each antero-posterior ray is summed, as PAX-Ray does (Seibold et al. 2022,
"Detailed Annotations of Chest X-Rays via CT Projection for Report Understanding"), so a mask known
in 3D gives its outline in the picture. Rays are parallel: the magnification of a point source is
not modelled.

The picture is laid out as a reader sees a PA film: the patient's right on the image's left,
superior up. Volumes are taken as aligned with the patient; the obliquity of a tilted scan is
ignored.
"""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from pydicom.dataset import FileDataset, FileMetaDataset
from pydicom.uid import UID, DigitalXRayImageStorageForPresentation, ExplicitVRLittleEndian
from scipy import ndimage

from storage.images.types import Radiograph, Volume

PIXEL_MM = 0.7
"""Side of a square pixel; a large CT field of 360 mm becomes 512 pixels."""

WATER_HU_SPAN = 1000.0
"""Air is -1000 HU and water 0, so (HU + 1000) / 1000 is attenuation relative to water."""

ATTENUATION_PER_MM = 0.012
"""Effective attenuation of water in the tone curve.

Half of water's 0.018/mm at 100 keV: a detector's latitude is narrower than the beam's, and with
the full value bone and mediastinum merge into white.
"""

_BODY_PATH_MM = 20.0
"""Water-equivalent path of a ray through the body; air, table and clothes have less."""

_TONE_PERCENTILES = (1, 99.8)
"""Of the body's absorption, shown black and white: single dense rays do not darken the rest."""


@dataclass(frozen=True)
class FrontalGrid:
    """The pixel grid of a projected radiograph in the patient's RAS millimetres.

    right_mm: x of the left edge of column 0 (x falls along the columns, towards the left).
    top_mm: z of the upper edge of row 0 (z falls along the rows).
    """

    rows: int
    columns: int
    right_mm: float
    top_mm: float

    @classmethod
    def of(cls, volume: Volume) -> FrontalGrid:
        """The grid that covers a volume edge to edge."""
        (left_mm, right_mm), (bottom_mm, top_mm) = _extent_xz_mm(volume.hu.shape, volume.affine)
        rows = max(1, round((top_mm - bottom_mm) / PIXEL_MM))
        columns = max(1, round((right_mm - left_mm) / PIXEL_MM))
        return cls(rows, columns, right_mm, top_mm)

    def voxel_indices(
        self, affine: NDArray[np.float64]
    ) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
        """Fractional voxel index along z of every row's centre and along x of every column's."""
        scale_xyz_mm = np.linalg.norm(affine[:3, :3], axis=0)
        x_mm = self.right_mm - (np.arange(self.columns) + 0.5) * PIXEL_MM
        z_mm = self.top_mm - (np.arange(self.rows) + 0.5) * PIXEL_MM
        return (
            (z_mm - affine[2, 3]) / scale_xyz_mm[2],
            (x_mm - affine[0, 3]) / scale_xyz_mm[0],
        )


def _extent_xz_mm(
    shape_xyz: tuple[int, ...], affine: NDArray[np.float64]
) -> tuple[tuple[float, float], tuple[float, float]]:
    scale = np.linalg.norm(affine[:3, :3], axis=0)
    low = affine[:3, 3] - scale / 2
    high = low + scale * np.asarray(shape_xyz)
    return (float(low[0]), float(high[0])), (float(low[2]), float(high[2]))


def project(volume: Volume) -> Radiograph:
    """The frontal radiograph of a CT.

    Values outside the scanner's field (below -1000 HU) count as air. The tone curve is the share
    of the beam that is absorbed, 1 - exp(-attenuation × water-equivalent path), stretched
    between the 1st and 99.8th percentile of the body.
    """
    path_mm = water_path_mm(volume)
    rows_z, columns_x = FrontalGrid.of(volume).voxel_indices(volume.affine)
    coordinates = np.meshgrid(columns_x, rows_z)
    resampled = ndimage.map_coordinates(path_mm, coordinates, order=3, mode="nearest")
    absorbed = 1 - np.exp(-ATTENUATION_PER_MM * np.clip(resampled, 0, None))
    body = absorbed[resampled > _BODY_PATH_MM]
    low, high = np.percentile(body, _TONE_PERCENTILES) if body.size else (0.0, 1.0)
    pixels = np.clip((absorbed - low) / max(high - low, 1e-6), 0, 1).astype(np.float32)
    return Radiograph(pixels, (PIXEL_MM, PIXEL_MM), "PA", "DX")


def water_path_mm(volume: Volume) -> NDArray[np.float32]:
    """Water-equivalent length of each antero-posterior ray, shape (x, z), in mm."""
    depth_mm = volume.spacing_xyz_mm[1]
    path = np.empty((volume.hu.shape[0], volume.hu.shape[2]), dtype=np.float32)
    # Slab by slab: a float copy of a 512 × 512 × 500 CT would take half a gigabyte.
    for x, slab in enumerate(volume.hu):
        relative = np.maximum(slab, -WATER_HU_SPAN).astype(np.float32) / WATER_HU_SPAN + 1
        path[x] = relative.sum(axis=0) * depth_mm
    return path


def project_mask(
    mask: NDArray[np.generic], affine: NDArray[np.float64], grid: FrontalGrid
) -> NDArray[np.bool_]:
    """Outline (rows, columns) of a RAS+ mask (x, y, z) on a radiograph's pixels.

    The mask may have its own voxel grid (`affine`), say a crop; what lies outside `grid` is left
    out.
    """
    shadow = np.any(mask, axis=1)
    rows_z, columns_x = grid.voxel_indices(affine)
    z, x = np.rint(rows_z).astype(int), np.rint(columns_x).astype(int)
    inside_z, inside_x = (z >= 0) & (z < shadow.shape[1]), (x >= 0) & (x < shadow.shape[0])
    outline = np.zeros((grid.rows, grid.columns), dtype=bool)
    outline[np.ix_(inside_z, inside_x)] = shadow[np.ix_(x[inside_x], z[inside_z])].T
    return outline


def outline_box_xyxy_px(outline: NDArray[np.bool_]) -> tuple[int, int, int, int] | None:
    """Half-open box of the pixels set, or None when there is none."""
    rows, columns = np.flatnonzero(outline.any(axis=1)), np.flatnonzero(outline.any(axis=0))
    if not rows.size:
        return None
    return int(columns[0]), int(rows[0]), int(columns[-1]) + 1, int(rows[-1]) + 1


def write_radiograph_dicom(radiograph: Radiograph, path: Path, description: str) -> None:
    """Store a radiograph as a 16-bit MONOCHROME2 DICOM file.

    The same radiograph and description give the same bytes: the UIDs are derived from the
    content, and no clock is read. `description` becomes the series description; it should say
    what the picture is made from (DICOM allows 64 characters).
    """
    stored = np.rint(np.clip(radiograph.pixels, 0, 1) * 65535).astype("<u2")
    dataset = _identified_dataset(radiograph, stored.tobytes(), description)
    dataset.ImageType = ["DERIVED", "SECONDARY"]
    dataset.Modality = radiograph.modality
    dataset.BodyPartExamined = "CHEST"
    dataset.PatientOrientation = ["L", "F"]
    if radiograph.view:
        dataset.ViewPosition = radiograph.view
    if radiograph.spacing_yx_mm:
        dataset.PixelSpacing = list(radiograph.spacing_yx_mm)
    dataset.Rows, dataset.Columns = stored.shape
    dataset.SamplesPerPixel = 1
    dataset.PhotometricInterpretation = "MONOCHROME2"
    dataset.BitsAllocated = dataset.BitsStored = 16
    dataset.HighBit = 15
    dataset.PixelRepresentation = 0
    # The linear VOI function (DICOM PS3.3 C.11.2.1.2) maps 0 to black and 65535 to white so.
    dataset.WindowCenter, dataset.WindowWidth = 32768, 65536
    dataset.RescaleIntercept, dataset.RescaleSlope = 0, 1
    dataset.PixelData = stored.tobytes()
    path.parent.mkdir(parents=True, exist_ok=True)
    dataset.save_as(path, enforce_file_format=True)


def _identified_dataset(radiograph: Radiograph, stored: bytes, description: str) -> FileDataset:
    identity = repr((radiograph.pixels.shape, radiograph.spacing_yx_mm, radiograph.view))
    digest = hashlib.sha256(identity.encode() + description.encode() + stored).digest()
    # Root 2.25 takes any 128-bit number (DICOM PS3.5 B.2).
    study, series, instance = (
        UID(f"2.25.{int.from_bytes(digest[start : start + 10], 'big')}") for start in (0, 10, 20)
    )
    meta = FileMetaDataset()
    meta.MediaStorageSOPClassUID = DigitalXRayImageStorageForPresentation
    meta.MediaStorageSOPInstanceUID = instance
    meta.TransferSyntaxUID = ExplicitVRLittleEndian
    dataset = FileDataset("", {}, file_meta=meta, preamble=b"\0" * 128)
    dataset.SOPClassUID = DigitalXRayImageStorageForPresentation
    dataset.SOPInstanceUID = instance
    dataset.SeriesInstanceUID = series
    dataset.StudyInstanceUID = study
    dataset.SeriesDescription = description[:64]
    return dataset
