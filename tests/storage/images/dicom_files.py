"""Small DICOM files for tests, written with pydicom."""

from pathlib import Path

import numpy as np
from pydicom.dataset import FileDataset, FileMetaDataset
from pydicom.uid import (
    CTImageStorage,
    DigitalXRayImageStorageForPresentation,
    ExplicitVRLittleEndian,
    generate_uid,
)
from pydicom.valuerep import DSfloat

SERIES = generate_uid(entropy_srcs=["series"])


def decimals(*values):
    """DICOM decimal strings, as many digits as their 16 characters take."""
    return [DSfloat(float(value), auto_format=True) for value in values]


def write(path: Path, pixels: np.ndarray, **elements) -> Path:
    """Write one image; an element set to None is left out."""
    meta = FileMetaDataset()
    meta.TransferSyntaxUID = ExplicitVRLittleEndian
    meta.MediaStorageSOPInstanceUID = generate_uid(entropy_srcs=[str(path)])
    meta.MediaStorageSOPClassUID = (
        CTImageStorage
        if elements.get("Modality") == "CT"
        else DigitalXRayImageStorageForPresentation
    )
    dataset = FileDataset(str(path), {}, file_meta=meta, preamble=b"\0" * 128)
    dataset.Rows, dataset.Columns = pixels.shape[:2]
    dataset.SamplesPerPixel = 1
    dataset.PhotometricInterpretation = "MONOCHROME2"
    dataset.BitsAllocated = dataset.BitsStored = pixels.dtype.itemsize * 8
    dataset.HighBit = dataset.BitsStored - 1
    dataset.PixelRepresentation = int(pixels.dtype.kind == "i")
    dataset.PixelData = pixels.tobytes()
    for keyword, value in elements.items():
        if value is not None:
            setattr(dataset, keyword, value)
        elif keyword in dataset:
            delattr(dataset, keyword)
    dataset.save_as(path, enforce_file_format=True)
    return path


def write_radiograph(path: Path, pixels: np.ndarray, **elements) -> Path:
    """Write a DX image."""
    return write(path, pixels, **{"Modality": "DX", **elements})


def write_ct_slice(path: Path, pixels: np.ndarray, position=(0, 0, 0), **elements) -> Path:
    """Write an axial CT slice at an LPS position; the elements override its geometry."""
    geometry = {
        "Modality": "CT",
        "SeriesInstanceUID": SERIES,
        "ImagePositionPatient": decimals(*position),
        "ImageOrientationPatient": decimals(1, 0, 0, 0, 1, 0),
        "PixelSpacing": decimals(0.5, 0.5),
        "RescaleSlope": 1,
        "RescaleIntercept": 0,
    }
    return write(path, pixels, **{**geometry, **elements})
