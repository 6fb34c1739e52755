import numpy as np
import pydicom
import pytest
from PIL import Image
from pydicom import Dataset

from storage.images.loading import describe_image, load_radiograph
from storage.images.types import ImageError
from tests.storage.images.dicom_files import write_radiograph

RAMP = np.arange(0, 4096, 16, dtype=np.uint16).reshape(16, 16)


def test_real_radiograph_is_inverted_and_windowed_as_its_header_says(real_input):
    path = real_input("radiograph/RG1_UNCR.dcm")
    radiograph = load_radiograph(path)
    stored = pydicom.dcmread(path).pixel_array
    window = np.clip((stored - 14999.5) / 29999 + 0.5, 0, 1)  # PS3.3 C.11.2.1.2.1
    assert np.allclose(radiograph.pixels, 1 - window, atol=1e-5)
    assert radiograph.pixels.dtype == np.float32
    assert radiograph.pixels.shape == (1955, 1841)
    assert (radiograph.view, radiograph.modality) == ("PA", "CR")
    assert radiograph.spacing_yx_mm is None, "the file's pixel spacing of 0.000 says nothing"


def test_real_radiograph_is_darker_in_the_lungs_than_in_the_mediastinum(real_input):
    pixels = load_radiograph(real_input("radiograph/RG1_UNCR.dcm")).pixels
    assert np.median(pixels[250:450, 400:600]) < np.median(pixels[500:1400, 850:950])


@pytest.mark.parametrize("photometric", ["MONOCHROME1", "MONOCHROME2"])
def test_dense_is_bright_in_both_photometric_interpretations(tmp_path, photometric):
    path = write_radiograph(tmp_path / "a.dcm", RAMP, PhotometricInterpretation=photometric)
    pixels = load_radiograph(path).pixels
    assert (pixels[0, 0] < pixels[-1, -1]) == (photometric == "MONOCHROME2")
    assert (pixels.min(), pixels.max()) == (0, 1)


def test_window_is_applied_to_rescaled_values(tmp_path):
    path = write_radiograph(
        tmp_path / "a.dcm",
        RAMP,
        RescaleSlope=2,
        RescaleIntercept=-1000,
        WindowCenter=[1000.5, 7],
        WindowWidth=[2001, 9],
    )
    expected = np.clip((RAMP * 2.0 - 1000) / 2000, 0, 1)
    assert np.allclose(load_radiograph(path).pixels, expected, atol=1e-6)


def test_emptied_rescale_counts_as_none(tmp_path):
    path = write_radiograph(
        tmp_path / "a.dcm",
        RAMP,
        RescaleSlope="",
        RescaleIntercept="",
        WindowCenter=2048,
        WindowWidth=4096,
    )
    assert np.allclose(load_radiograph(path).pixels, RAMP / 4095, atol=1e-6)


def test_sigmoid_window(tmp_path):
    path = write_radiograph(
        tmp_path / "a.dcm", RAMP, WindowCenter=2000, WindowWidth=800, VOILUTFunction="SIGMOID"
    )
    expected = 1 / (1 + np.exp(-4 * (RAMP - 2000.0) / 800))
    assert np.allclose(load_radiograph(path).pixels, expected, atol=1e-6)


@pytest.mark.parametrize("bits", [8, 12])
def test_lookup_table_goes_before_the_window(tmp_path, bits):
    table = Dataset()
    table.LUTDescriptor = [4096, 0, bits]
    entries = np.arange(4095, -1, -1) >> (12 - bits)
    table.LUTData = entries.astype("<u2").tobytes()
    path = write_radiograph(
        tmp_path / "a.dcm",
        RAMP,
        VOILUTSequence=[table],
        WindowCenter=1,
        WindowWidth=2,
        RescaleSlope=1,
        RescaleIntercept=0,
    )
    assert np.allclose(load_radiograph(path).pixels, entries[RAMP] / (2**bits - 1), atol=1e-6)


def test_modality_table_goes_before_the_window(tmp_path):
    table = Dataset()
    table.LUTDescriptor = [4096, 0, 12]
    table.LUTData = np.arange(4095, -1, -1, dtype="<u2").tobytes()
    path = write_radiograph(
        tmp_path / "a.dcm",
        RAMP,
        ModalityLUTSequence=[table],
        WindowCenter=2048,
        WindowWidth=4096,
    )
    assert np.allclose(load_radiograph(path).pixels, (4095 - RAMP) / 4095, atol=1e-6)


def test_values_outside_a_lookup_table_take_its_ends(tmp_path):
    table = Dataset()
    table.LUTDescriptor = [3, 1000, 8]
    table.LUTData = [10, 100, 200]
    table["LUTData"].VR = "US"
    path = write_radiograph(tmp_path / "a.dcm", RAMP, VOILUTSequence=[table])
    pixels = load_radiograph(path).pixels
    assert np.allclose((pixels[0, 0], pixels[-1, -1]), (10 / 255, 200 / 255))


@pytest.mark.parametrize("width", [None, 0, 1])
def test_without_a_usable_window_the_values_are_stretched(tmp_path, width):
    pixels = np.full((100, 100), 500, np.uint16)
    pixels[:, 50:] = 700
    pixels[0, 0] = 60000  # one marker must not darken the rest
    path = write_radiograph(tmp_path / "a.dcm", pixels, WindowCenter=width, WindowWidth=width)
    assert set(np.unique(load_radiograph(path).pixels)) == {0, 1}


def test_constant_image_without_window(tmp_path):
    path = write_radiograph(tmp_path / "a.dcm", np.full((4, 4), 9, np.uint16))
    assert not load_radiograph(path).pixels.any()


@pytest.mark.parametrize(
    ("pixel", "imager", "expected"),
    [
        ([0.2, 0.1], [0.3, 0.3], (0.2, 0.1)),
        (None, [0.3, 0.4], (0.3, 0.4)),
        ([0, 0], [0.3, 0.4], (0.3, 0.4)),
        (None, None, None),
        ([-1, 1], None, None),
    ],
)
def test_spacing(tmp_path, pixel, imager, expected):
    path = write_radiograph(tmp_path / "a", RAMP, PixelSpacing=pixel, ImagerPixelSpacing=imager)
    assert load_radiograph(path).spacing_yx_mm == expected
    assert describe_image(path).spacing_mm == expected


@pytest.mark.filterwarnings("ignore:Invalid value for VR CS")
@pytest.mark.parametrize(
    ("written", "expected"),
    [("pa ", "PA"), ("AP", "AP"), ("LL", "LATERAL"), ("RL", "LATERAL"), ("", None), (None, None)],
)
def test_view(tmp_path, written, expected):
    path = write_radiograph(tmp_path / "a.dcm", RAMP, ViewPosition=written)
    assert load_radiograph(path).view == expected
    assert describe_image(path).view == expected


@pytest.mark.parametrize(
    ("elements", "words"),
    [
        ({"Modality": "MG"}, "modality MG"),
        ({"NumberOfFrames": 4}, "4 frames"),
    ],
)
def test_unsupported_dicom(tmp_path, elements, words):
    path = write_radiograph(tmp_path / "a.dcm", RAMP, **elements)
    for use in (load_radiograph, describe_image):
        with pytest.raises(ImageError, match=words) as caught:
            use(path)
        assert caught.value.reason == "image_unsupported"


def test_real_colour_dicom_is_unsupported(real_input):
    with pytest.raises(ImageError, match="colour") as caught:
        load_radiograph(real_input("radiograph/color.dcm"))
    assert caught.value.reason == "image_unsupported"


def test_modality_that_is_not_stated(tmp_path):
    assert load_radiograph(write_radiograph(tmp_path / "a", RAMP, Modality=None)).modality == "OT"


@pytest.mark.parametrize(
    ("suffix", "mode"),
    [("png", "L"), ("png", "LA"), ("png", "RGB"), ("png", "RGBA"), ("jpg", "L"), ("jpg", "RGB")],
)
def test_grey_raster(tmp_path, suffix, mode):
    grey = np.linspace(0, 255, 64 * 48).astype(np.uint8).reshape(64, 48)
    path = tmp_path / f"image.{suffix}"
    Image.fromarray(grey).convert(mode).save(path)
    radiograph = load_radiograph(path)
    assert np.allclose(radiograph.pixels, grey / 255, atol=0 if suffix == "png" else 3 / 255)
    assert radiograph.pixels.dtype == np.float32
    assert (radiograph.spacing_yx_mm, radiograph.view) == (None, None)
    assert describe_image(path).shape == (64, 48)


def test_sixteen_bit_raster_uses_its_own_range(tmp_path):
    grey = np.linspace(1000, 5000, 200 * 200).astype(np.uint16).reshape(200, 200)
    Image.fromarray(grey).save(tmp_path / "a.png")
    pixels = load_radiograph(tmp_path / "a.png").pixels
    assert (pixels.min(), pixels.max()) == (0, 1)
    assert abs(float(pixels[100, 0]) - 0.5) < 0.01


def test_colour_raster_is_unsupported(tmp_path):
    Image.new("RGB", (9, 9), (200, 20, 20)).save(tmp_path / "a.png")
    with pytest.raises(ImageError, match="colour"):
        load_radiograph(tmp_path / "a.png")
