"""Load an image from whatever file holds it: DICOM, NIfTI, NRRD, MetaImage, PNG, JPEG or TIFF.

A reader is imported when the first image of its kind is read: pydicom and nibabel would otherwise
slow down every start of the program.
"""

from __future__ import annotations

from pathlib import Path

from storage.images.header_correction import split_correction
from storage.images.placeholders import refuse_placeholder
from storage.images.types import ImageDescription, ImageError, Radiograph, Volume


def load_radiograph(path: Path) -> Radiograph:
    """Load a DICOM, PNG or JPEG radiograph.

    Raises:
        ImageError: if it is missing, damaged, in colour, of several frames, of another modality,
            larger than the limit, or compressed in a way that no decoder knows.
    """
    from storage.images import radiographs

    return radiographs.read(_existing(path))


def load_volume(path: Path, modality: str = "CT") -> Volume:
    """Load a volume: a NIfTI, NRRD or MetaImage file, a folder with one DICOM series, a file of it.

    Args:
        path: The file or folder; `name#2` is channel 2, from 0, of a file of several.
        modality: What it is said to be. The values of a CT must be Hounsfield units; those of
            another modality are read as its file states them.

    A correction of the header at the end of the path (`storage.images.header_correction`) is
    applied, here as in the other functions.

    Raises:
        ImageError: if it is missing, damaged, not one three-dimensional volume, without geometry,
            or a series with slices missing, doubled or not parallel.
    """
    from storage.images import dicom, dicom_series, volume_files

    path, correction = split_correction(path)
    if _existing(path).is_dir() or _is_enhanced_ct(path):
        return dicom_series.read(path, modality)
    if dicom.is_dicom(volume_files.split_channel(path)[0]):
        raise ImageError(
            "image_unsupported", f"{path} is one DICOM file: give the folder of its series"
        )
    return volume_files.read(path, modality, correction)


def describe_image(path: Path, modality: str = "CT") -> ImageDescription:
    """Describe a radiograph or volume from its headers; no pixel is decoded.

    Args:
        path: As the loaders take it.
        modality: Of a volume: which series of a folder is meant, and what a file that does not
            say is.

    Raises:
        ImageError: as the loaders, as far as headers can tell.
    """
    from storage.images import dicom_series, radiographs, volume_files

    path, correction = split_correction(path)
    if _existing(path).is_dir() or _is_enhanced_ct(path):
        return dicom_series.describe(path, modality)
    if _has_volume_name(path):
        return volume_files.describe(path, modality, correction)
    return radiographs.describe(path)


def check_grey(path: Path) -> None:
    """Refuse a radiograph in colour, as `load_radiograph` does; one in grey is not decoded.

    Raises:
        ImageError: as `load_radiograph`.
    """
    from storage.images import radiographs

    radiographs.check_grey(_existing(path))


def is_volume(path: Path) -> bool:
    """Whether a path is to be read as a volume, by its name or, of a DICOM file, its kind.

    Raises:
        ImageError: if it is missing or no image.
    """
    path, _ = split_correction(path)
    return _existing(path).is_dir() or _has_volume_name(path) or _is_enhanced_ct(path)


def _has_volume_name(path: Path) -> bool:
    from storage.images import volume_files

    return volume_files.split_channel(path)[0].name.endswith(volume_files.SUFFIXES)


def _is_enhanced_ct(path: Path) -> bool:
    from storage.images import dicom, enhanced_ct, volume_files

    file, _ = volume_files.split_channel(path)
    return dicom.is_dicom(file) and enhanced_ct.is_enhanced_ct(file)


def _existing(path: Path) -> Path:
    from storage.images import volume_files

    file, _ = volume_files.split_channel(path)
    try:
        file.stat()
    except OSError as error:
        raise ImageError("image_not_found", f"{path} cannot be found: {error.strerror}") from error
    if file.is_file():
        refuse_placeholder(file)
    return path
