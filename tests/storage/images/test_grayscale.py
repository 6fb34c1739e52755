"""Tables, windows and padding of films, each of which may be unusable."""

import numpy as np
import pytest
from pydicom import Dataset, dcmread

from storage.images.loading import load_radiograph
from tests.storage.images.dicom_files import write_radiograph

RAMP = np.arange(0, 4096, 16, dtype=np.uint16).reshape(16, 16)
STRETCH = np.clip(
    (RAMP - np.percentile(RAMP, 0.5)) / np.ptp(np.percentile(RAMP, [0.5, 99.5])), 0, 1
)


def table(descriptor, data, vr="OW"):
    item = Dataset()
    item.add_new("LUTDescriptor", "US" if min(descriptor) >= 0 else "SS", descriptor)
    item.add_new("LUTData", vr, data)
    return item


FALLING = table([4096, 0, 12], np.arange(4095, -1, -1, dtype="<u2").tobytes())


def shown(tmp_path, pixels=RAMP, **elements):
    return load_radiograph(write_radiograph(tmp_path / "a.dcm", pixels, **elements)).pixels


def windowed(center, width):
    return np.clip((RAMP - (center - 0.5)) / (width - 1) + 0.5, 0, 1)


@pytest.mark.parametrize(
    ("centers", "widths", "expected"),
    [
        ([99_999, 2048], [100, 4096], windowed(2048, 4096)),
        ([-9000, 2048], [100, 4096], windowed(2048, 4096)),
        ([2048, 2000], [1.5, 2000], windowed(2000, 2000)),
        ([2048, 1000], [0, 2000], windowed(1000, 2000)),
        ([2000, 99], [2000], windowed(2000, 2000)),
        (2000, [2000, 99], windowed(2000, 2000)),
        (-9000, 100, STRETCH),
        ([], [], STRETCH),
    ],
)
def test_a_window_that_shows_nothing_gives_way(tmp_path, centers, widths, expected):
    pixels = shown(tmp_path, WindowCenter=centers, WindowWidth=widths)
    assert np.allclose(pixels, expected, atol=1e-6)


def test_a_sigmoid_that_shows_nothing_gives_way(tmp_path):
    window = {"WindowCenter": [-9000, 2000], "WindowWidth": [10, 800]}
    pixels = shown(tmp_path, VOILUTFunction="SIGMOID", **window)
    assert np.allclose(pixels, 1 / (1 + np.exp(-4 * (RAMP - 2000.0) / 800)), atol=1e-6)


def test_exact_linear_window(tmp_path):
    pixels = shown(tmp_path, VOILUTFunction="LINEAR_EXACT", WindowCenter=2000, WindowWidth=1000)
    assert np.allclose(pixels, np.clip((RAMP - 2000.0) / 1000 + 0.5, 0, 1), atol=1e-6)


UNUSABLE = {
    "no bits": table([4096, 0, 0], bytes(8192)),
    "too many bits": table([4096, 0, 32], bytes(8192)),
    "constant": table([4096, 0, 12], bytes(8192)),
    "cut short": table([4096, 0, 12], bytes(100)),
    "empty": table([4096, 0, 12], b""),
    "no three numbers": table([4096, 0], bytes(8192)),
    "beside the pixels": table([16, 9000, 12], np.arange(16, dtype="<u2").tobytes()),
    "bare": Dataset(),
}


@pytest.mark.parametrize("unusable", UNUSABLE.values(), ids=UNUSABLE)
def test_an_unusable_table_gives_way_to_the_next_one_to_a_window_to_a_stretch(tmp_path, unusable):
    window = {"WindowCenter": 2048, "WindowWidth": 4096}
    pixels = shown(tmp_path, VOILUTSequence=[unusable, FALLING], **window)
    assert np.allclose(pixels, (4095 - RAMP) / 4095, atol=1e-6)
    assert np.allclose(shown(tmp_path, VOILUTSequence=[unusable], **window), RAMP / 4095, atol=1e-6)
    assert np.allclose(shown(tmp_path, VOILUTSequence=[unusable]), STRETCH, atol=1e-6)


def test_an_unusable_table_of_the_modality_gives_way_to_the_rescale(tmp_path):
    pixels = shown(
        tmp_path,
        ModalityLUTSequence=[UNUSABLE["no bits"]],
        RescaleSlope=2,
        RescaleIntercept=-1000,
        WindowCenter=1000.5,
        WindowWidth=2001,
    )
    assert np.allclose(pixels, np.clip((RAMP * 2.0 - 1000) / 2000, 0, 1), atol=1e-6)


@pytest.mark.parametrize("slope", [0, "nan"])
def test_a_rescale_that_loses_the_picture_is_ignored(tmp_path, slope):
    assert np.allclose(shown(tmp_path, RescaleSlope=slope, RescaleIntercept=5), STRETCH, atol=1e-6)


ENTRIES = np.arange(255, -1, -1, dtype=np.uint8)


@pytest.mark.parametrize(
    ("descriptor", "data", "vr"),
    [
        ([256, 0, 8], ENTRIES.tobytes(), "OW"),
        ([255, 0, 8], ENTRIES[:255].tobytes() + b"\0", "OW"),
        ([256, 0, 8], ENTRIES.astype("<u2").tobytes(), "OW"),
        ([256, 0, 8], ENTRIES.tolist(), "US"),
    ],
)
def test_table_of_eight_bits(tmp_path, descriptor, data, vr):
    pixels = (RAMP[:, :-1] // 16).astype(np.uint8)
    pixels = np.minimum(pixels, 254)
    shades = shown(tmp_path, pixels, VOILUTSequence=[table(descriptor, data, vr)])
    assert np.allclose(shades, (255 - pixels) / 255, atol=1e-6)


def test_entries_above_the_bits_of_a_table(tmp_path):
    lying = table([4096, 0, 8], np.arange(4095, -1, -1, dtype="<u2").tobytes())
    assert np.allclose(shown(tmp_path, VOILUTSequence=[lying]), (4095 - RAMP) / 4095, atol=1e-6)


@pytest.mark.parametrize("first", [63_488, -2048])
def test_first_value_of_a_table_for_signed_pixels(tmp_path, first):
    entries = np.arange(4095, -1, -1, dtype="<u2").tobytes()
    pixels = RAMP.astype(np.int16) - 2048
    shades = shown(tmp_path, pixels, VOILUTSequence=[table([4096, first, 12], entries)])
    assert np.allclose(shades, (4095 - RAMP) / 4095, atol=1e-6)


@pytest.mark.parametrize("first", [61_440, -4096])
def test_first_value_of_a_table_for_large_pixels(tmp_path, first):
    entries = np.arange(4095, -1, -1, dtype="<u2").tobytes()
    shades = shown(tmp_path, RAMP + 61_440, VOILUTSequence=[table([4096, first, 12], entries)])
    assert np.allclose(shades, (4095 - RAMP) / 4095, atol=1e-6)


@pytest.mark.parametrize("photometric", ["MONOCHROME1", "MONOCHROME2"])
@pytest.mark.parametrize(
    ("dtype", "padding", "elements"),
    [
        (np.uint16, 65_535, {"PixelPaddingValue": 65_535}),
        (np.uint16, 0, {"PixelPaddingValue": 0}),
        (np.int16, -2000, {"PixelPaddingValue": -2000}),
        (np.int16, -2000, {"PixelPaddingValue": 63_536}),
        (np.uint16, 9000, {"PixelPaddingValue": 8000, "PixelPaddingRangeLimit": 10_000}),
        (np.uint16, 9000, {"PixelPaddingValue": 10_000, "PixelPaddingRangeLimit": 8000}),
    ],
)
def test_padding_is_black_and_outside_the_stretch(tmp_path, photometric, dtype, padding, elements):
    pixels = np.vstack([RAMP + 100, np.full((8, 16), padding)]).astype(dtype)
    written = Dataset()
    for keyword, value in elements.items():
        written.add_new(keyword, "SS" if value < 0 else "US", value)
    path = write_radiograph(tmp_path / "a.dcm", pixels, PhotometricInterpretation=photometric)
    dataset = dcmread(path)
    dataset.update(written)
    dataset.save_as(path)
    shades = load_radiograph(path).pixels
    expected = 1 - STRETCH if photometric == "MONOCHROME1" else STRETCH
    assert np.allclose(shades[:16], expected, atol=1e-5)
    assert not shades[16:].any()


@pytest.mark.parametrize(
    "elements",
    [
        {"PixelPaddingValue": 0, "PixelPaddingRangeLimit": 65_535},
        {"PixelPaddingValue": 5000},
    ],
)
def test_padding_that_is_all_of_the_picture_or_nothing_is_ignored(tmp_path, elements):
    assert np.allclose(shown(tmp_path, **elements), STRETCH, atol=1e-6)


@pytest.mark.parametrize("elements", [{}, {"WindowCenter": 9, "WindowWidth": 1}])
def test_constant_film(tmp_path, elements):
    assert not shown(tmp_path, np.full((4, 4), 9, np.uint16), **elements).any()
