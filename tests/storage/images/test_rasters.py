"""PNG and JPEG films: read as they are meant, or refused."""

import struct
import zlib

import numpy as np
import pytest
from PIL import Image

from storage.images.loading import describe_image, load_radiograph
from storage.images.types import ImageError

GREY = np.linspace(0, 255, 48 * 32).astype(np.uint8).reshape(48, 32)
ORIENTED = {
    1: GREY,
    2: GREY[:, ::-1],
    3: GREY[::-1, ::-1],
    4: GREY[::-1],
    5: GREY.T,
    6: GREY.T[:, ::-1],
    7: GREY.T[::-1, ::-1],
    8: GREY.T[::-1],
}


def saved(path, image, **options):
    image.save(path, **options)
    return path


def reason_of(path, words, uses=(load_radiograph,)):
    reasons = set()
    for use in uses:
        with pytest.raises(ImageError, match=words) as caught:
            use(path)
        reasons.add(caught.value.reason)
    (reason,) = reasons
    return reason


def chunk(kind, data):
    return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))


def with_chunks(path, *chunks, before=b"IDAT"):
    """A PNG with more chunks before one of its own."""
    data = path.read_bytes()
    at = data.index(before) - 4
    path.write_bytes(data[:at] + b"".join(chunks) + data[at:])
    return path


@pytest.mark.parametrize("suffix", ["png", "jpg"])
@pytest.mark.parametrize("orientation", ORIENTED)
def test_exif_orientation_is_applied(tmp_path, suffix, orientation):
    exif = Image.Exif()
    exif[0x0112] = orientation
    path = saved(tmp_path / f"a.{suffix}", Image.fromarray(GREY), exif=exif)
    expected = ORIENTED[orientation]
    pixels = load_radiograph(path).pixels
    assert pixels.shape == describe_image(path).shape == expected.shape
    assert np.allclose(pixels, expected / 255, atol=0 if suffix == "png" else 6 / 255)


def test_orientation_that_is_none(tmp_path):
    exif = Image.Exif()
    exif[0x0112] = 9
    path = saved(tmp_path / "a.png", Image.fromarray(GREY), exif=exif)
    assert np.allclose(load_radiograph(path).pixels, GREY / 255)


def test_orientation_written_after_the_pixels_is_unsupported(tmp_path):
    path = saved(tmp_path / "a.png", Image.fromarray(GREY))
    exif = Image.Exif()
    exif[0x0112] = 6
    with_chunks(path, chunk(b"eXIf", exif.tobytes()[6:]), before=b"IEND")
    assert reason_of(path, "which way up") == "image_unsupported"


def palette():
    image = Image.fromarray(255 - GREY, "P")
    image.putpalette(np.repeat(np.arange(255, -1, -1), 3).astype(np.uint8).tobytes())
    return image


def with_alpha(mode):
    image = Image.fromarray(GREY).convert(mode)
    image.putalpha(Image.fromarray(np.where(GREY < 100, 0, 255).astype(np.uint8)))
    return image


VISIBLE = np.where(GREY < 100, 0, GREY)


@pytest.mark.parametrize(
    ("image", "options", "expected"),
    [
        (palette(), {}, GREY),
        (Image.fromarray(GREY), {"transparency": 77}, np.where(GREY == 77, 0, GREY)),
        (with_alpha("L"), {}, VISIBLE),
        (with_alpha("RGB"), {}, VISIBLE),
        (Image.fromarray(GREY).convert("RGB"), {"icc_profile": b"no profile" * 20}, GREY),
        (Image.fromarray(GREY > 127), {}, np.where(GREY > 127, 255, 0)),
    ],
    ids=["palette", "one transparent grey", "LA", "RGBA", "ICC", "1 bit"],
)
def test_kinds_of_png(tmp_path, image, options, expected):
    path = saved(tmp_path / "a.png", image, **options)
    assert np.allclose(load_radiograph(path).pixels, expected / 255, atol=1e-6)


def test_wholly_transparent_film_is_shown(tmp_path):
    image = Image.fromarray(GREY).convert("LA")
    image.putalpha(0)
    assert np.allclose(load_radiograph(saved(tmp_path / "a.png", image)).pixels, GREY / 255)


def test_gamma_is_not_applied(tmp_path):
    path = saved(tmp_path / "a.png", Image.fromarray(GREY))
    with_chunks(path, chunk(b"gAMA", struct.pack(">I", 100_000)))
    assert np.allclose(load_radiograph(path).pixels, GREY / 255)


@pytest.mark.parametrize("value", [0, 700, 65_535])
def test_constant_film_of_sixteen_bits(tmp_path, value):
    image = Image.fromarray(np.full((9, 9), value, np.uint16))
    assert not load_radiograph(saved(tmp_path / "a.png", image)).pixels.any()


def test_interlaced_film_of_sixteen_bits(tmp_path):
    """Adam7 (PNG, 8.2), written by hand: Pillow does not write it."""
    grey = np.arange(64 * 8, dtype=np.uint16).reshape(64, 8) * 100
    passes = [(0, 0, 8, 8), (0, 4, 8, 8), (4, 0, 8, 4), (0, 2, 4, 4), (2, 0, 4, 2)]
    passes += [(0, 1, 2, 2), (1, 0, 2, 1)]
    rows = [row for y, x, dy, dx in passes for row in grey[y::dy, x::dx]]
    data = zlib.compress(b"".join(b"\0" + row.astype(">u2").tobytes() for row in rows))
    header = struct.pack(">IIBBBBB", 8, 64, 16, 0, 0, 0, 1)
    path = tmp_path / "a.png"
    path.write_bytes(
        b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", data) + chunk(b"IEND", b"")
    )
    pixels = load_radiograph(path).pixels
    low, high = np.percentile(grey, [0.5, 99.5])
    assert np.allclose(pixels, np.clip((grey - low) / (high - low), 0, 1), atol=1e-5)


def test_channels_of_sixteen_bits_are_unsupported(tmp_path):
    header = struct.pack(">IIBBBBB", 1, 1, 16, 2, 0, 0, 0)
    path = tmp_path / "a.png"
    data = chunk(b"IDAT", zlib.compress(bytes(7)))
    path.write_bytes(b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + data + chunk(b"IEND", b""))
    words = "channels of 16 bits"
    assert reason_of(path, words, [load_radiograph, describe_image]) == "image_unsupported"


def test_grey_cmyk_jpeg(tmp_path):
    black = Image.fromarray(255 - GREY)
    none = Image.new("L", black.size)
    image = Image.merge("CMYK", [none, none, none, black])
    path = saved(tmp_path / "a.jpg", image, quality=95)
    assert np.allclose(load_radiograph(path).pixels, GREY / 255, atol=6 / 255)


@pytest.mark.parametrize("mode", ["RGB", "CMYK", "P"])
def test_colour_photograph_is_unsupported(tmp_path, mode):
    image = Image.fromarray(np.stack([GREY, GREY // 2, 255 - GREY], axis=-1)).convert(mode)
    suffix = "jpg" if mode == "CMYK" else "png"
    assert reason_of(saved(tmp_path / f"a.{suffix}", image), "colour") == "image_unsupported"


def test_several_frames_are_unsupported(tmp_path):
    other = Image.fromarray(255 - GREY)
    image = Image.fromarray(GREY)
    path = saved(tmp_path / "a.png", image, save_all=True, append_images=[other])
    words = "2 frames"
    assert reason_of(path, words, [load_radiograph, describe_image]) == "image_unsupported"


@pytest.mark.parametrize("kind", ["GIF", "BMP", "WEBP"])
def test_other_formats_in_disguise_are_unreadable(tmp_path, kind):
    path = saved(tmp_path / "a.png", Image.fromarray(GREY), format=kind)
    words = "no DICOM, PNG or JPEG"
    assert reason_of(path, words, [load_radiograph, describe_image]) == "image_unreadable"


def test_tiff_is_read_as_png_is_unless_it_holds_floats(tmp_path):
    for grey in (GREY, GREY.astype(np.uint16) * 9):
        path = saved(tmp_path / "a.tif", Image.fromarray(grey))
        png = saved(tmp_path / "a.png", Image.fromarray(grey))
        np.testing.assert_array_equal(load_radiograph(path).pixels, load_radiograph(png).pixels)
        assert describe_image(path).shape == GREY.shape
    floats = saved(tmp_path / "a.tif", Image.fromarray(GREY.astype(np.float32)))
    assert reason_of(floats, "holds floats", [load_radiograph]) == "image_unsupported"


@pytest.mark.parametrize("suffix", ["png", "jpg"])
def test_truncated_picture_is_unreadable(tmp_path, suffix):
    noise = np.random.default_rng(0).integers(0, 255, (48, 32)).astype(np.uint8)
    path = saved(tmp_path / f"a.{suffix}", Image.fromarray(noise))
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])
    assert reason_of(path, "cannot be read as") == "image_unreadable"


def test_changed_pixels_of_a_png_are_noticed(tmp_path):
    path = saved(tmp_path / "a.png", Image.fromarray(GREY), compress_level=0)
    data = bytearray(path.read_bytes())
    data[data.index(b"IDAT") + 400] ^= 0x40
    path.write_bytes(data)
    assert reason_of(path, "cannot be read as") == "image_unreadable"


@pytest.mark.parametrize("side", [13_000, 65_535, 2**31 - 1])
def test_png_of_more_pixels_than_the_limit(tmp_path, side):
    path = saved(tmp_path / "a.png", Image.fromarray(GREY))
    data = bytearray(path.read_bytes())
    data[16:24] = struct.pack(">II", side, side)
    data[29:33] = struct.pack(">I", zlib.crc32(data[12:29]))
    path.write_bytes(data)
    words = f"{side} × {side} pixels"
    assert reason_of(path, words, [load_radiograph, describe_image]) == "too_large"


def test_jpeg_of_more_pixels_than_the_limit(tmp_path):
    path = saved(tmp_path / "a.jpg", Image.fromarray(GREY))
    data = path.read_bytes().replace(struct.pack(">HH", 48, 32), b"\xff\xff\xff\xff", 1)
    path.write_bytes(data)
    assert reason_of(path, "65535", [load_radiograph, describe_image]) == "too_large"
