"""A file that a failed download or checkout left behind is called what it is."""

import gzip

import pytest

from storage.images.loading import describe_image, load_radiograph, load_volume
from storage.images.placeholders import refuse_placeholder
from storage.images.types import ImageError

LFS = b"version https://git-lfs.github.com/spec/v1\noid sha256:4d7a2146\nsize 12345\n"
PAGE = b"\n<!DOCTYPE html>\n<html><head><title>Sign in</title></head></html>\n"
NAMES = ("a.nii.gz", "a.nii", "a.dcm", "a.png", "a.jpg")


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize(
    ("content", "words"), [(LFS, "Git LFS pointer, not the file"), (PAGE, "web page")]
)
@pytest.mark.parametrize("use", [load_radiograph, load_volume, describe_image])
def test_whatever_it_is_named_and_read_as(tmp_path, name, content, words, use):
    (tmp_path / name).write_bytes(content)
    with pytest.raises(ImageError, match=words) as caught:
        use(tmp_path / name)
    assert caught.value.reason == "image_unreadable"


@pytest.mark.parametrize("use", [load_volume, describe_image])
def test_a_series_of_pointers(tmp_path, use):
    (tmp_path / "0.dcm").write_bytes(LFS)
    with pytest.raises(ImageError, match=r"0\.dcm is a Git LFS pointer"):
        use(tmp_path)


@pytest.mark.parametrize(
    ("content", "words"),
    [
        (b"\xef\xbb\xbf<HTML lang='en'>", "web page"),
        (b"<?xml version='1.0'?>\n<!DOCTYPE html PUBLIC ''>", "web page"),
        (b"<!-- saved -->\n<html>", "web page"),
        (b"<?xml version='1.0'?>\n<Error><Code>AccessDenied</Code></Error>", r"\(XML\)"),
        (b'{"message": "Bad credentials"}', r"\(JSON\)"),
        (b"../../.git/annex/objects/Zx/9K/SHA256E-s1--ab/SHA256E-s1--ab.nii.gz", "git-annex"),
        (b"/annex/objects/SHA256E-s1--ab.nii.gz\n", "git-annex"),
    ],
)
def test_other_forms(tmp_path, content, words):
    (tmp_path / "a").write_bytes(content)
    with pytest.raises(ImageError, match=words):
        refuse_placeholder(tmp_path / "a")


@pytest.mark.parametrize(
    "content", [b"", b"\0" * 600, gzip.compress(PAGE, mtime=0), b"\x89PNG\r\n\x1a\n"]
)
def test_what_may_be_an_image_is_left_to_its_reader(tmp_path, content):
    (tmp_path / "a").write_bytes(content)
    refuse_placeholder(tmp_path / "a")
