"""Compressed films: what is stored comes back, and damage costs one image, not the process."""

import random

import numpy as np
import pydicom
import pytest
from pydicom.encaps import encapsulate, generate_frames

from storage.images import codecs
from storage.images.dicom import read_whole, stored_pixels
from storage.images.loading import load_radiograph
from storage.images.types import ImageError
from tests.storage.images.compression import compress
from tests.storage.images.dicom_files import write_radiograph

LOSSLESS = ["JPEG lossless", "JPEG lossless SV1", "JPEG-LS", "JPEG 2000 lossless", "RLE"]


def film(kind):
    """A smooth film with noise, 52 × 37 pixels: 8 bits, or 12 of 16, without or with sign."""
    y, x = np.mgrid[:52, :37]
    noise = np.random.default_rng(0).integers(-20, 20, x.shape)
    grey = np.clip(2000 + 1500 * np.sin(x / 9) + 400 * np.cos(y / 7) + noise, 0, 4095)
    if kind == "8 bits":
        return (grey // 16).astype(np.uint8), {}
    signed = kind == "12 bits signed"
    pixels = (grey - 2048).astype(np.int16) if signed else grey.astype(np.uint16)
    return pixels, {"BitsStored": 12, "HighBit": 11}


def damaged(stream, rng):
    """The stream with bytes changed, cut, taken out or put in."""
    damaged = bytearray(stream)
    at, length = rng.randrange(len(damaged)), rng.randrange(1, 300)
    match rng.randrange(4):
        case 0:
            damaged[at] = rng.randrange(256)
        case 1:
            del damaged[at:]
        case 2:
            del damaged[at : at + length]
        case 3:
            damaged[at:at] = rng.randbytes(length)
    return bytes(damaged)


@pytest.mark.parametrize("kind", ["8 bits", "12 bits", "12 bits signed"])
@pytest.mark.parametrize("syntax", LOSSLESS)
def test_lossless_films_come_back(tmp_path, syntax, kind):
    pixels, elements = film(kind)
    path = compress(write_radiograph(tmp_path / "a.dcm", pixels, **elements), syntax)
    stored = stored_pixels(path, read_whole(path))
    assert stored.dtype == pixels.dtype
    assert np.array_equal(stored, pixels)


@pytest.mark.parametrize("syntax", ["JPEG baseline", "JPEG extended"])
def test_lossy_films_come_back_nearly(tmp_path, syntax):
    pixels, _ = film("8 bits")
    smooth = np.sort(pixels, axis=0)
    path = compress(write_radiograph(tmp_path / "a.dcm", smooth), syntax)
    assert np.abs(stored_pixels(path, read_whole(path)).astype(int) - smooth).mean() < 4


def test_real_lossless_jpeg(real_input, tmp_path):
    dataset = pydicom.dcmread(real_input("radiograph/bad_sequence.dcm"))
    dataset.Modality = "DX"
    dataset.save_as(tmp_path / "a.dcm")
    pixels = load_radiograph(tmp_path / "a.dcm").pixels
    assert pixels.shape == (dataset.Rows, dataset.Columns)
    assert 0.1 < pixels.mean() < 0.9


def test_extended_jpeg_of_twelve_bits_is_unsupported(tmp_path):
    pixels, elements = film("12 bits")
    path = compress(write_radiograph(tmp_path / "a.dcm", pixels, **elements), "JPEG extended")
    with pytest.raises(ImageError, match=r"JPEG Extended.* with 12 bits, which is not") as caught:
        load_radiograph(path)
    assert caught.value.reason == "image_unsupported"


def rewritten(path, change):
    """The file with its compressed frame changed."""
    dataset = pydicom.dcmread(path)
    frame = next(generate_frames(dataset.PixelData, number_of_frames=1))
    dataset.PixelData = change(frame)
    dataset.save_as(path)
    return path


@pytest.mark.parametrize("has_offset_table", [True, False])
def test_one_frame_in_several_fragments(tmp_path, has_offset_table):
    pixels, elements = film("12 bits")
    path = compress(write_radiograph(tmp_path / "a.dcm", pixels, **elements), "JPEG lossless SV1")
    rewritten(path, lambda f: encapsulate([f], fragments_per_frame=3, has_bot=has_offset_table))
    assert np.array_equal(stored_pixels(path, read_whole(path)), pixels)


@pytest.mark.parametrize("syntax", ["JPEG lossless", "JPEG-LS", "JPEG 2000", "JPEG baseline"])
def test_stream_of_another_size_than_the_header_says(tmp_path, syntax):
    pixels, _ = film("8 bits")
    path = compress(write_radiograph(tmp_path / "a.dcm", pixels), syntax)

    def enlarged(frame):
        at = frame.index((52).to_bytes(2, "big") + (37).to_bytes(2, "big"))
        return encapsulate([frame[:at] + b"\xff\xff\xff\xff" + frame[at + 4 :]])

    def enlarged_jpeg_2000(frame):
        assert frame[8:16] == (37).to_bytes(4, "big") + (52).to_bytes(4, "big")
        return encapsulate([frame[:8] + b"\0\0\xff\xff" * 2 + frame[16:]])

    rewritten(path, enlarged_jpeg_2000 if syntax == "JPEG 2000" else enlarged)
    with pytest.raises(
        ImageError, match=r"compressed pixels are .*, its header says 52 × 37"
    ) as caught:
        load_radiograph(path)
    assert caught.value.reason == "image_unreadable"


@pytest.mark.parametrize("syntax", [*LOSSLESS, "JPEG baseline"])
def test_damaged_streams_are_read_or_refused(tmp_path, syntax):
    pixels, _ = film("8 bits")
    path = compress(write_radiograph(tmp_path / "a.dcm", pixels), syntax)
    dataset = pydicom.dcmread(path)
    frame = next(generate_frames(dataset.PixelData, number_of_frames=1))
    rng = random.Random(syntax)  # noqa: S311
    refused = []
    for _ in range(30):
        dataset.PixelData = encapsulate([damaged(frame, rng)])
        try:
            assert stored_pixels(path, dataset).shape == pixels.shape
        except ImageError as error:
            refused.append(error)
    assert len(refused) > 3
    assert {error.reason for error in refused} == {"image_unreadable"}
    assert all(str(path) in error.detail for error in refused)


@pytest.mark.parametrize(
    ("program", "words"),
    [
        ("import os; os.abort()", "it crashed"),
        ("import time; time.sleep(600)", "took more than 1 s"),
    ],
)
def test_decoder_that_dies_or_hangs_costs_one_image(tmp_path, monkeypatch, program, words):
    pixels, _ = film("8 bits")
    path = compress(write_radiograph(tmp_path / "a.dcm", pixels), "RLE")
    dataset = read_whole(path)
    broken = tmp_path / "worker.py"
    broken.write_text(program)
    with monkeypatch.context() as patch:
        patch.setattr(codecs, "_WORKER", broken)
        patch.setattr(codecs, "_SECONDS", 1.0)
        patch.setattr(codecs._Worker, "_idle", [])
        with pytest.raises(ImageError, match=words) as caught:
            stored_pixels(path, dataset)
    assert caught.value.reason == "image_unreadable"
    assert np.array_equal(stored_pixels(path, dataset), pixels)
