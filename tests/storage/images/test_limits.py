from pathlib import Path

import numpy as np
import pytest

from storage.images.decoding import decoding
from storage.images.limits import (
    LimitsError,
    check_film_bytes,
    check_pixels,
    check_voxels,
    image_limits,
)
from storage.images.types import ImageError

PATH = Path("a.dcm")


@pytest.fixture
def environment(monkeypatch):
    """Sets a variable; the limits are read again, and after the test once more."""

    def set_variable(name, value):
        monkeypatch.setenv(name, value)
        image_limits.cache_clear()

    yield set_variable
    image_limits.cache_clear()


@pytest.mark.parametrize(
    ("check", "shape"),
    [
        (check_voxels, (512, 512, 2500)),
        (check_voxels, (1024, 1024, 1000)),
        (lambda path, shape: check_pixels(path, *shape), (7112, 8636)),
    ],
)
def test_the_largest_real_images_pass(check, shape):
    check(PATH, shape)


@pytest.mark.parametrize(
    ("check", "words"),
    [
        (lambda: check_pixels(PATH, 13_000, 13_000), "VIVIDMED_MAX_PIXELS"),
        (lambda: check_pixels(PATH, 65_535, 65_535), "VIVIDMED_MAX_PIXELS"),
        (lambda: check_voxels(PATH, (2048, 2048, 2048)), "VIVIDMED_MAX_VOXELS"),
        (lambda: check_voxels(PATH, np.array([32767] * 7, np.int16)), "VIVIDMED_MAX_VOXELS"),
        (lambda: check_film_bytes(PATH, 1 << 30), "VIVIDMED_MAX_PIXELS"),
    ],
)
def test_larger_ones_are_refused_and_the_setting_is_named(check, words):
    with pytest.raises(ImageError, match=words) as caught:
        check()
    assert caught.value.reason == "too_large"


def test_the_environment_sets_the_limits(environment):
    environment("VIVIDMED_MAX_PIXELS", "99")
    with pytest.raises(ImageError, match="10 × 10 pixels, 100 in all; 99 are read"):
        check_pixels(PATH, 10, 10)
    environment("VIVIDMED_MAX_VOXELS", "1000")
    check_voxels(PATH, (10, 10, 10))


@pytest.mark.parametrize("value", ["", "many", "0", "-5", "1.5"])
def test_a_wrong_setting_is_told_and_not_blamed_on_the_file(environment, value):
    environment("VIVIDMED_MAX_PIXELS", value)
    message = f"VIVIDMED_MAX_PIXELS is {value!r}: it must be a positive whole number"
    with pytest.raises(LimitsError, match=message), decoding(PATH, "DICOM"):
        check_pixels(PATH, 1, 1)
