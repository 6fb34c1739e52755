"""DICOM files as they come: bare, deflated, with odd elements, with pixels that do not fit."""

import struct
import zlib

import numpy as np
import pydicom
import pytest
from pydicom.filewriter import write_dataset
from pydicom.uid import (
    DeflatedExplicitVRLittleEndian,
    ExplicitVRBigEndian,
    ExplicitVRLittleEndian,
    ImplicitVRLittleEndian,
)

from storage.images.dicom import is_dicom, read_whole, stored_pixels
from storage.images.loading import describe_image, load_radiograph
from storage.images.types import ImageError
from tests.storage.images.dicom_files import write_radiograph

RAMP = np.arange(0, 4096, 16, dtype=np.uint16).reshape(16, 16)
WINDOW = {"WindowCenter": 2048, "WindowWidth": 4096}


def reason_of(path, words="", uses=(load_radiograph, describe_image)):
    """The reason that loading and describing agree on."""
    reasons = set()
    for use in uses:
        with pytest.raises(ImageError, match=words) as caught:
            use(path)
        reasons.add(caught.value.reason)
    (reason,) = reasons
    return reason


def assert_ramp(path):
    assert np.allclose(load_radiograph(path).pixels, RAMP / 4095, atol=1e-6)
    assert describe_image(path).shape == RAMP.shape


def without_preamble(path, syntax, keeps_meta):
    """The file's data set with nothing before it, or only group 0002."""
    dataset = pydicom.dcmread(path)
    stream = pydicom.filebase.DicomBytesIO()
    if keeps_meta:
        stream.write(path.read_bytes()[132 : path.read_bytes().index(b"\x08\x00")])
    stream.is_implicit_VR = syntax == ImplicitVRLittleEndian
    stream.is_little_endian = True
    del dataset.file_meta
    write_dataset(stream, dataset)
    path.write_bytes(stream.getvalue())
    return path


@pytest.mark.parametrize(
    ("syntax", "keeps_meta"),
    [
        (ExplicitVRLittleEndian, True),
        (ExplicitVRLittleEndian, False),
        (ImplicitVRLittleEndian, False),
    ],
)
def test_file_without_preamble(tmp_path, syntax, keeps_meta):
    path = write_radiograph(tmp_path / "a.dcm", RAMP, **WINDOW)
    assert_ramp(without_preamble(path, syntax, keeps_meta))


@pytest.mark.parametrize(
    "start",
    [
        b"\x08\x00 notes of a reader, not an element of a data set",
        b"\x08\x00\x05\x00CS\xff\xff" + b"x" * 200,
        b"\x02\x00\x99\x99" + b"\0" * 200,
        b"\x08\x00\x05\x00",
        b"\x5c\x01\0\0" + b"\0" * 500,
        b"PK\x03\x04" + b"\0" * 200,
        b"\0" * 500,
    ],
)
def test_other_files_are_not_taken_for_bare_ones(tmp_path, start):
    (tmp_path / "a").write_bytes(start)
    assert not is_dicom(tmp_path / "a")


@pytest.mark.parametrize("syntax", [ExplicitVRLittleEndian, ImplicitVRLittleEndian])
def test_transfer_syntax_that_is_not_stated(tmp_path, syntax):
    path = write_radiograph(tmp_path / "a.dcm", RAMP, **WINDOW)
    dataset = pydicom.dcmread(path)
    del dataset.file_meta.TransferSyntaxUID
    dataset.save_as(
        path,
        implicit_vr=syntax == ImplicitVRLittleEndian,
        little_endian=True,
        enforce_file_format=False,
    )
    assert_ramp(path)


@pytest.mark.parametrize("depth", [np.uint16, np.uint8])
def test_big_endian(tmp_path, depth):
    pixels = (RAMP >> (16 - 8 * np.dtype(depth).itemsize) // 2).astype(depth)
    path = write_radiograph(tmp_path / "a.dcm", pixels)
    dataset = pydicom.dcmread(path)
    dataset.PixelData = pixels.astype(pixels.dtype.newbyteorder(">")).tobytes()
    dataset["PixelData"].VR = "OB" if depth == np.uint8 else "OW"
    dataset.file_meta.TransferSyntaxUID = ExplicitVRBigEndian
    pydicom.dcmwrite(path, dataset, implicit_vr=False, little_endian=False, force_encoding=True)
    assert np.array_equal(stored_pixels(path, read_whole(path)), pixels)


def deflated(path, change=lambda data: data):
    """The file with its data set deflated, after a change of the deflated bytes."""
    dataset = pydicom.dcmread(path)
    dataset.file_meta.TransferSyntaxUID = DeflatedExplicitVRLittleEndian
    dataset.save_as(path)
    data = path.read_bytes()
    start = path.read_bytes().index(b"1.2.840.10008.1.2.1.99") + 22
    meta_end = 144 + struct.unpack_from("<I", data, 140)[0]
    assert start <= meta_end
    path.write_bytes(data[:meta_end] + change(data[meta_end:]))
    return path


def test_deflated_file(tmp_path):
    assert_ramp(deflated(write_radiograph(tmp_path / "a.dcm", RAMP, **WINDOW)))


def test_deflated_file_that_is_cut_short(tmp_path):
    path = deflated(write_radiograph(tmp_path / "a.dcm", RAMP), lambda data: data[:-20])
    assert reason_of(path, "cut short") == "image_unreadable"


def test_deflated_file_that_inflates_to_more_than_a_film_has(tmp_path):
    def bomb(_):
        deflater = zlib.compressobj(wbits=-zlib.MAX_WBITS)
        element = struct.pack("<HH2sHI", 0x0009, 0x0010, b"OB", 0, 1 << 30)
        pieces = [deflater.compress(element)]
        pieces += [deflater.compress(bytes(1 << 24)) for _ in range(20)]
        return b"".join([*pieces, deflater.flush()])

    path = deflated(write_radiograph(tmp_path / "a.dcm", RAMP), bomb)
    assert reason_of(path, "VIVIDMED_MAX_PIXELS") == "too_large"


def test_more_pixels_than_the_limit(tmp_path):
    path = write_radiograph(tmp_path / "a.dcm", RAMP, Rows=20_000, Columns=20_000)
    assert reason_of(path, "20000 × 20000 pixels") == "too_large"


@pytest.mark.parametrize(
    "sizes",
    [{"Rows": 17}, {"Rows": 15}, {"Columns": 17}, {"Columns": 8}, {"BitsAllocated": 8}],
)
def test_pixels_of_another_number_than_the_header_says(tmp_path, sizes):
    path = write_radiograph(tmp_path / "a.dcm", RAMP, **sizes)
    assert reason_of(path, "bytes of pixels", uses=[load_radiograph]) == "image_unreadable"


@pytest.mark.parametrize("padding", [b"\0", b"\0\0\0\0"])
def test_few_bytes_after_the_pixels_are_padding(tmp_path, padding):
    data = RAMP.tobytes() + padding
    assert_ramp(write_radiograph(tmp_path / "a.dcm", RAMP, PixelData=data, **WINDOW))


ODD = [
    ("PixelSpacing", "0,143\\0,143"),
    ("PixelSpacing", "0.143"),
    ("PixelSpacing", "abc\\abc"),
    ("PixelSpacing", "-0.1\\0.1"),
    ("PixelSpacing", "1e9\\1e9"),
    ("PixelSpacing", "nan\\nan"),
    ("PixelSpacing", "0.1\\0.1\\0.1"),
    ("ImagerPixelSpacing", "0;143"),
    ("ViewPosition", "\xff\xfe\\??"),
    ("WindowCenter", "bright"),
    ("WindowWidth", "1e999"),
    ("RescaleSlope", "one"),
    ("RescaleIntercept", ""),
    ("PixelPaddingValue", "none"),
    ("NumberOfFrames", "one"),
    ("PatientAge", "old"),
    ("StudyDate", "yesterday"),
    ("VOILUTFunction", "CURVE\\CURVE"),
]


@pytest.mark.parametrize(("keyword", "value"), ODD)
def test_one_odd_element_does_not_cost_the_image(tmp_path, keyword, value):
    path = write_radiograph(tmp_path / "a.dcm", RAMP, PixelSpacing=None)
    dataset = pydicom.dcmread(path)
    dataset.add_new(keyword, "LO", value)
    dataset.save_as(path)
    data = bytearray(path.read_bytes())
    tag = pydicom.tag.Tag(keyword)
    at = data.index(struct.pack("<HH2s", tag.group, tag.element, b"LO"))
    data[at + 4 : at + 6] = pydicom.datadict.dictionary_VR(keyword).split()[0].encode()
    path.write_bytes(data)
    radiograph = load_radiograph(path)
    assert radiograph.spacing_yx_mm is None
    assert np.corrcoef(radiograph.pixels.ravel(), RAMP.ravel())[0, 1] > 0.99
    assert describe_image(path).shape == RAMP.shape


@pytest.mark.parametrize(("dtype", "high_bit"), [("u2", 11), ("u2", 15), ("i2", 11), ("i2", 13)])
def test_overlay_in_the_high_bits_and_other_high_bits(tmp_path, dtype, high_bit):
    values = (RAMP.astype("i4") - (2048 if dtype == "i2" else 0)).astype(dtype)
    shift = high_bit - 11
    written = (values.astype("<u2") & 0xFFF) << shift
    written |= np.uint16(0x8000 if high_bit == 11 else 0)
    path = write_radiograph(
        tmp_path / "a.dcm", written.astype("<u2").view(dtype), BitsStored=12, HighBit=high_bit
    )
    assert np.array_equal(stored_pixels(path, read_whole(path)), values)


def grey_capture(tmp_path, tint=0, **elements):
    """A screen capture in red, green and blue."""
    grey = (RAMP >> 4).astype(np.uint8)
    rgb = np.stack([grey, grey, np.clip(grey + tint, 0, 255).astype(np.uint8)], axis=-1)
    planar = elements.get("PlanarConfiguration") == 1
    elements = {
        "SamplesPerPixel": 3,
        "PhotometricInterpretation": "RGB",
        "PlanarConfiguration": 0,
        "PixelData": (rgb.transpose(2, 0, 1) if planar else rgb).tobytes(),
        **elements,
    }
    return grey, write_radiograph(tmp_path / "a.dcm", rgb, **elements)


@pytest.mark.parametrize("planar", [0, 1, None])
def test_grey_capture_in_colours(tmp_path, planar):
    grey, path = grey_capture(tmp_path, PlanarConfiguration=planar)
    assert np.allclose(load_radiograph(path).pixels, grey / 255)


def test_grey_capture_in_brightness_and_colour(tmp_path):
    grey = (RAMP >> 4).astype(np.uint8)
    data = np.stack([grey, np.full_like(grey, 128), np.full_like(grey, 128)], axis=-1).tobytes()
    _, path = grey_capture(tmp_path, PhotometricInterpretation="YBR_FULL", PixelData=data)
    assert np.allclose(load_radiograph(path).pixels, grey / 255, atol=1 / 255)


@pytest.mark.parametrize("bits", [8, 16])
def test_grey_capture_in_a_palette(tmp_path, bits):
    table = np.arange(256)[::-1] * (257 if bits == 16 else 1)
    path = write_radiograph(
        tmp_path / "a.dcm",
        (RAMP >> 4).astype(np.uint8),
        PhotometricInterpretation="PALETTE COLOR",
        **{
            f"{colour}PaletteColorLookupTableDescriptor": [256, 0, bits]
            for colour in ("Red", "Green", "Blue")
        },
        **{
            f"{colour}PaletteColorLookupTableData": table.astype(f"<u{bits // 8}").tobytes()
            for colour in ("Red", "Green", "Blue")
        },
    )
    assert np.allclose(load_radiograph(path).pixels, 1 - (RAMP >> 4) / 255, atol=1e-6)


def test_coloured_capture_is_unsupported(tmp_path):
    _, path = grey_capture(tmp_path, tint=40)
    assert reason_of(path, "colour", uses=[load_radiograph]) == "image_unsupported"
