"""Compress DICOM files for tests, with GDCM and pydicom."""

from pathlib import Path

import gdcm
import pydicom
from pydicom.uid import UID, JPEG2000Lossless, RLELossless

GDCM = {
    "JPEG lossless": gdcm.TransferSyntax.JPEGLosslessProcess14,
    "JPEG lossless SV1": gdcm.TransferSyntax.JPEGLosslessProcess14_1,
    "JPEG-LS": gdcm.TransferSyntax.JPEGLSLossless,
    "JPEG 2000": gdcm.TransferSyntax.JPEG2000,
    "JPEG baseline": gdcm.TransferSyntax.JPEGBaselineProcess1,
    "JPEG extended": gdcm.TransferSyntax.JPEGExtendedProcess2_4,
}
PYDICOM = {"JPEG 2000 lossless": JPEG2000Lossless, "RLE": RLELossless}


def compress(path: Path, syntax: str) -> Path:
    """Write an uncompressed file again beside itself, compressed."""
    written = path.with_suffix(f".{syntax}.dcm")
    if syntax in PYDICOM:
        _with_pydicom(path, written, PYDICOM[syntax])
    else:
        _with_gdcm(path, written, GDCM[syntax])
    return written


def _with_pydicom(path: Path, written: Path, syntax: UID) -> None:
    dataset = pydicom.dcmread(path)
    dataset.compress(syntax, encoding_plugin="pylibjpeg", generate_instance_uid=False)
    dataset.save_as(written)


def _with_gdcm(path: Path, written: Path, syntax: int) -> None:
    reader = gdcm.ImageReader()
    reader.SetFileName(str(path))
    assert reader.Read()
    change = gdcm.ImageChangeTransferSyntax()
    change.SetTransferSyntax(gdcm.TransferSyntax(syntax))
    change.SetInput(reader.GetImage())
    assert change.Change()
    writer = gdcm.ImageWriter()
    writer.SetFile(reader.GetFile())
    writer.SetImage(change.GetOutput())
    writer.SetFileName(str(written))
    assert writer.Write()
