"""DICOM radiographs in each transfer syntax that is read: elements and bytes damaged."""

import tempfile
from functools import cache
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from hypothesis import strategies as st
from hypothesis.strategies import SearchStrategy
from pydicom import Dataset, dcmread
from pydicom.uid import (
    UID,
    DeflatedExplicitVRLittleEndian,
    ExplicitVRBigEndian,
    ImplicitVRLittleEndian,
)

from storage.images.types import ImageError
from tests.fuzz.edits import Damaged, Edit, damaged, edited, several
from tests.fuzz.elements import element_edits
from tests.fuzz.images import read_radiograph
from tests.fuzz.trials import Kind
from tests.storage.images.compression import GDCM, PYDICOM, compress
from tests.storage.images.dicom_files import decimals, write_radiograph

_ENCODINGS = {
    "implicit": ImplicitVRLittleEndian,
    "big-endian": ExplicitVRBigEndian,
    "deflated": DeflatedExplicitVRLittleEndian,
}
_HEADER = range(700)
_NOT_OF_PIXELS = (
    "AcquisitionDate",
    "BodyPartExamined",
    "ImagerPixelSpacing",
    "InstanceNumber",
    "PatientAge",
    "PatientName",
    "PixelSpacing",
    "ReferencedStudySequence",
    "SliceThickness",
    "SmallestImagePixelValue",
    "StudyInstanceUID",
    "ViewPosition",
    "WindowCenterWidthExplanation",
)


class OddElements(NamedTuple):
    """A film and edits of elements that say nothing of its pixels."""

    original: str
    edits: tuple[Edit, ...]


def inputs() -> SearchStrategy[Any]:
    """Damaged films."""
    names = st.sampled_from(sorted(_films().keys() - {"deflated"}))
    elements = names.flatmap(
        lambda name: st.builds(Damaged, st.just(name), several(element_edits(_films()[name])))
    )
    odd = names.flatmap(
        lambda name: st.builds(
            OddElements, st.just(name), several(element_edits(_films()[name], _NOT_OF_PIXELS))
        )
    )
    return damaged(_films(), _HEADER) | elements | odd


def outcome(given: Damaged | OddElements, folder: Path) -> None:
    """Load the film; elements that say nothing of its pixels cost no film."""
    path = folder / "film.dcm"
    original = _films()[given.original]
    path.write_bytes(edited(original, given.edits))
    if isinstance(given, Damaged):
        read_radiograph(path)
        return
    try:
        film = read_radiograph(path)
    except ImageError as error:
        raise AssertionError(f"an odd element costs the film: {error}") from error
    path.write_bytes(original)
    assert np.array_equal(film.pixels, read_radiograph(path).pixels), "it has other pixels"


@cache
def _films() -> dict[str, bytes]:
    """Small films, with a window, with lookup tables, and in each encoding."""
    values = np.random.default_rng(0).integers(0, 4096, (40, 36))  # JPEG 2000 wants 32
    said = {
        "ViewPosition": "PA",
        "PixelSpacing": decimals(0.14, 0.14),
        "ImagerPixelSpacing": decimals(0.2, 0.2),
        "BitsStored": 12,
        "HighBit": 11,
        "RescaleSlope": 1,
        "RescaleIntercept": 0,
    }
    window = {"WindowCenter": decimals(2000, 1000), "WindowWidth": decimals(3000, 500)}
    with tempfile.TemporaryDirectory() as folder:
        path = write_radiograph(
            Path(folder) / "film.dcm", values.astype(np.uint16), **said, **window
        )
        tables = write_radiograph(
            Path(folder) / "tables.dcm",
            values.astype(np.uint16),
            PhotometricInterpretation="MONOCHROME1",
            ModalityLUTSequence=[_table(2048, 12)],
            VOILUTSequence=[_table(4096, 8)],
            **said,
        )
        found = {"explicit": path.read_bytes(), "lookup tables": tables.read_bytes()}
        for name, syntax in _ENCODINGS.items():
            found[name] = _encoded(path, syntax).read_bytes()
        small = write_radiograph(Path(folder) / "8 bits.dcm", (values // 16).astype(np.uint8))
        for name in (*PYDICOM, *GDCM):
            of_8_bits = name in ("JPEG baseline", "JPEG extended")
            found[name] = compress(small if of_8_bits else path, name).read_bytes()
    return found


def _table(entries: int, bits: int) -> Dataset:
    table = Dataset()
    table.LUTDescriptor = [entries, 0, bits]
    table.LUTData = np.linspace(0, 2**bits - 1, entries).astype("<u2").tobytes()
    return table


def _encoded(path: Path, syntax: UID) -> Path:
    read = dcmread(path)
    dataset = Dataset()  # a new one, which may change its byte order
    for element in read:
        dataset.add(element)
    if syntax == ExplicitVRBigEndian:
        dataset.PixelData = read.pixel_array.byteswap().tobytes()
    dataset.file_meta = read.file_meta
    dataset.file_meta.TransferSyntaxUID = syntax
    written = path.with_suffix(".encoded.dcm")
    dataset.save_as(written, enforce_file_format=True)
    return written


KIND = Kind("DICOM films", inputs, outcome)
