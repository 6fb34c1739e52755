"""Bad files of every kind: one sentence each, and nothing else on the terminal."""

import copy
import subprocess
import sys
from pathlib import Path

import pytest

from storage.images.loading import describe_image, load_radiograph, load_volume
from storage.images.types import ImageError

ROOT = Path(__file__).parents[3]

CUTS = [
    ("radiograph/RG1_UNCR.dcm", load_radiograph, [1, 131, 132, 200, 1000, 2000, 10**6, -1000]),
    ("radiograph/RG1_UNCR.dcm", describe_image, [1, 131, 132, 200]),
    ("chest_ct/cxr.nii.gz", load_volume, [1, 5, 100, 10**4, 10**6, -9, -8, -1]),
    ("chest_ct/cxr.nii.gz", describe_image, [1, 5, 100]),
]


def reason_of(use, path):
    """The reason code, after checking that the sentence is one and names the file."""
    with pytest.raises(ImageError) as caught:
        use(path)
    detail = caught.value.detail
    assert detail == str(caught.value)
    assert str(path) in detail
    assert "\n" not in detail
    assert len(detail.replace(str(path), "")) < 330
    return caught.value.reason


@pytest.mark.parametrize(
    ("name", "use", "length"),
    [(name, use, length) for name, use, lengths in CUTS for length in lengths],
)
def test_cut_files_are_unreadable(real_input, tmp_path, name, use, length):
    path = tmp_path / Path(name).name
    path.write_bytes(real_input(name).read_bytes()[:length])
    assert reason_of(use, path) == "image_unreadable"


@pytest.mark.parametrize("name", ["a.dcm", "a.png", "a.jpg", "a.nii", "a.nii.gz", "a"])
@pytest.mark.parametrize("content", [b"", b"FINDINGS: clear lungs.\n" * 40])
@pytest.mark.parametrize("use", [load_radiograph, load_volume, describe_image])
def test_other_files_are_unreadable(tmp_path, name, content, use):
    (tmp_path / name).write_bytes(content)
    assert reason_of(use, tmp_path / name) == "image_unreadable"


@pytest.mark.parametrize("use", [load_radiograph, load_volume, describe_image])
def test_missing_file(tmp_path, use):
    assert reason_of(use, tmp_path / "nothing.dcm") == "image_not_found"


def test_folder_given_as_radiograph(tmp_path):
    assert reason_of(load_radiograph, tmp_path) == "image_unreadable"


def test_one_dicom_file_given_as_volume(real_input):
    path = real_input("radiograph/bad_sequence.dcm")
    assert reason_of(load_volume, path) == "image_unsupported"


@pytest.mark.parametrize("name", ["bad_sequence.dcm", "too_short.dcm", "color.dcm"])
def test_real_bad_dicom_is_refused(real_input, name):
    assert reason_of(load_radiograph, real_input(f"radiograph/{name}")).startswith("image_un")


def test_error_crosses_process_borders():
    error = copy.copy(ImageError("image_unreadable", "a.dcm is cut short"))  # as pickle does
    assert (error.reason, error.detail) == ("image_unreadable", "a.dcm is cut short")


def test_libraries_say_nothing_on_the_terminal(real_input, tmp_path):
    cut = tmp_path / "cut.dcm"
    cut.write_bytes(real_input("radiograph/RG1_UNCR.dcm").read_bytes()[:-1000])
    flat = tmp_path / "flat.nii.gz"
    flat.write_bytes(real_input("totalsegmentator/heart_heart.nii.gz").read_bytes()[:-100])
    paths = [real_input(f"radiograph/{name}.dcm") for name in ("bad_sequence", "too_short")]
    paths += [cut, flat]
    program = (
        "import logging, pathlib, sys\n"
        "from storage.images.loading import *\n"
        "logging.basicConfig(level=logging.INFO)\n"
        "for path in map(pathlib.Path, sys.argv[1:]):\n"
        "    for use in (load_radiograph, load_volume, describe_image):\n"
        "        try: use(path)\n"
        "        except ImageError: pass\n"
    )
    command = [sys.executable, "-W", "default", "-c", program, *map(str, paths)]
    run = subprocess.run(command, capture_output=True, text=True, check=True, cwd=ROOT)
    assert run.stdout + run.stderr == ""


def test_readers_are_not_imported_at_start():
    program = (
        "import sys, storage.images.loading\n"
        "print({'pydicom', 'nibabel', 'PIL'} & set(sys.modules))"
    )
    run = subprocess.run(
        [sys.executable, "-c", program], capture_output=True, text=True, check=True, cwd=ROOT
    )
    assert run.stdout.strip() == "set()"
