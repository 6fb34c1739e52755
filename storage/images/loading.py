"""Load an image from whatever file holds it: DICOM, a DICOM series, NIfTI, PNG or JPEG.

A reader is imported when the first image of its kind is read: pydicom and nibabel would otherwise
slow down every start of the program.
"""

from __future__ import annotations

from pathlib import Path

from storage.images.header_correction import split_correction
from storage.images.placeholders import refuse_placeholder
from storage.images.types import ImageDescription, ImageError, Radiograph, Volume

_NIFTI = (".nii", ".nii.gz")


def load_radiograph(path: Path) -> Radiograph:
    """Load a DICOM, PNG or JPEG radiograph.

    Raises:
        ImageError: if it is missing, damaged, in colour, of several frames, of another modality,
            larger than the limit, or compressed in a way that no decoder knows.
    """
    from storage.images import radiographs

    return radiographs.read(_existing(path))


def load_volume(path: Path) -> Volume:
    """Load a CT from a NIfTI file, a folder with one DICOM series, or an enhanced CT's file.

    A correction of the header at the end of the path (`storage.images.header_correction`) is
    applied, here as in the other functions.

    Raises:
        ImageError: if it is missing, damaged, not one three-dimensional CT, without geometry, or
            a series with slices missing, doubled or not parallel.
    """
    from storage.images import dicom, dicom_series, nifti

    path, correction = split_correction(path)
    if _existing(path).is_dir() or _is_enhanced_ct(path):
        return dicom_series.read(path)
    if dicom.is_dicom(path):
        raise ImageError(
            "image_unsupported", f"{path} is one DICOM file: give the folder of its series"
        )
    return nifti.read(path, correction)


def describe_image(path: Path) -> ImageDescription:
    """Describe a radiograph or volume from its headers; no pixel is decoded.

    Raises:
        ImageError: as the loaders, as far as headers can tell.
    """
    from storage.images import dicom_series, nifti, radiographs

    path, correction = split_correction(path)
    if _existing(path).is_dir() or _is_enhanced_ct(path):
        return dicom_series.describe(path)
    if path.name.endswith(_NIFTI):
        return nifti.describe(path, correction)
    return radiographs.describe(path)


def is_volume(path: Path) -> bool:
    """Whether a path is to be read as a volume, by its name or, of a DICOM file, its kind.

    Raises:
        ImageError: if it is missing or no image.
    """
    path, _ = split_correction(path)
    return _existing(path).is_dir() or path.name.endswith(_NIFTI) or _is_enhanced_ct(path)


def _is_enhanced_ct(path: Path) -> bool:
    from storage.images import dicom, enhanced_ct

    return dicom.is_dicom(path) and enhanced_ct.is_enhanced_ct(path)


def _existing(path: Path) -> Path:
    try:
        path.stat()
    except OSError as error:
        raise ImageError("image_not_found", f"{path} cannot be found: {error.strerror}") from error
    if path.is_file():
        refuse_placeholder(path)
    return path
