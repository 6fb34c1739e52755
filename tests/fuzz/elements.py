"""Elements of DICOM files removed, emptied, given odd values, and added."""

import struct
from collections.abc import Sequence
from io import BytesIO
from typing import NamedTuple

from hypothesis import strategies as st
from hypothesis.strategies import DrawFn
from pydicom import dcmread
from pydicom.datadict import dictionary_VR, keyword_for_tag
from pydicom.dataelem import RawDataElement
from pydicom.tag import BaseTag, Tag
from pydicom.valuerep import EXPLICIT_VR_LENGTH_32

from tests.fuzz.edits import Edit

_UNDEFINED = 0xFFFFFFFF
"""In place of a length (PS3.5, 7.1.1)."""

_ODD_VALUES = (
    b"",
    b"0 ",
    b"-1",
    b"1 ",
    b"0\\0 ",
    b"0,143\\0,143 ",
    b"nan\\nan ",
    b"1e400 ",
    b"1e-9\\1e-9 ",
    b"\\\\",
    b"0.5 ",
    b"1\\2\\3 ",
    b"99999999999999999999",
    b"CT",
    b"RGB ",
    b"\xff\xff",
    b"\0\0",
    b"\x01\0\x01\0",
    b"\xff" * 8,
    b"\xc3(",
    b"x" * 60_000,
)
_ADDED = (
    "NumberOfFrames",
    "PixelPaddingValue",
    "SmallestImagePixelValue",
    "PlanarConfiguration",
    "SliceThickness",
    "GantryDetectorTilt",
    "WindowCenter",
    "WindowWidth",
    "VOILUTFunction",
    "VOILUTSequence",
    "ModalityLUTSequence",
    "PresentationLUTShape",
    "SpecificCharacterSet",
    "ImagesInAcquisition",
    "InstanceNumber",
    "PrivateInformation",
    "ExtendedOffsetTable",
)


class _Element(NamedTuple):
    """Where an element lies in its file: its first byte, and the first byte behind it."""

    tag: BaseTag
    vr: str
    start: int
    stop: int


@st.composite
def element_edits(draw: DrawFn, data: bytes, keywords: Sequence[str] = ()) -> Edit:
    """An edit of one element, or of one of these, of a file that is not deflated."""
    form, elements = _elements(data)
    odd = draw(st.sampled_from(_ODD_VALUES))
    if draw(st.booleans()):
        named = [one for one in elements if not keywords or keyword_for_tag(one.tag) in keywords]
        element = draw(st.sampled_from(named))
        put = b"" if draw(st.booleans()) else _encoded(element.tag, element.vr, odd, *form)
        return Edit(element.start, element.stop, put)
    keyword = draw(st.sampled_from(keywords or _ADDED))
    tag = Tag(keyword)
    at = next((element.start for element in elements if element.tag >= tag), len(data))
    return Edit(at, at, _encoded(tag, dictionary_VR(tag)[:2], odd, *form))


def _elements(data: bytes) -> tuple[tuple[bool, str], list[_Element]]:
    """Whether VRs are implied, the byte order, and the top-level elements of stated length."""
    dataset = dcmread(BytesIO(data))
    implicit, little_endian = dataset.original_encoding
    form = (bool(implicit), "<" if little_endian else ">")
    found: list[_Element] = []
    for tag in dataset.keys():  # noqa: SIM118 iterating over the data set parses its elements
        raw = dataset.get_item(tag)
        if isinstance(raw, RawDataElement) and raw.value is not None and raw.length < _UNDEFINED:
            vr = raw.VR or dictionary_VR(tag)[:2]
            start = raw.value_tell - len(_encoded(raw.tag, vr, b"", *form))
            found.append(_Element(raw.tag, vr, start, raw.value_tell + raw.length))
    return form, found


def _encoded(tag: BaseTag, vr: str, value: bytes, implicit: bool, order: str) -> bytes:
    """An element as it stands in a file (PS3.5, 7.1), its value padded to whole words."""
    value += b" " * (len(value) % 2)
    start = struct.pack(f"{order}HH", tag.group, tag.element)
    if implicit:
        return start + struct.pack(f"{order}I", len(value)) + value
    if vr in EXPLICIT_VR_LENGTH_32:
        return start + vr.encode() + struct.pack(f"{order}2xI", len(value)) + value
    return start + vr.encode() + struct.pack(f"{order}H", len(value)) + value
