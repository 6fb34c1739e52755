"""Archives that are damaged, cut short or of a form that nobody expects."""

import gzip
import io
import tarfile
import zipfile
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from storage.archives import ArchiveError, members

TEXTS = {f"reports/{number}.txt": f"Report {number}. " * number for number in range(1, 40)}


def tarred(texts: dict[str, str] = TEXTS) -> bytes:
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w") as tar:
        for name, text in texts.items():
            info = tarfile.TarInfo(name)
            info.size = len(text)
            tar.addfile(info, io.BytesIO(text.encode()))
    return buffer.getvalue()


def zipped(texts: dict[str, str] = TEXTS) -> bytes:
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, text in texts.items():
            archive.writestr(name, text)
    return buffer.getvalue()


def read(file: Path, data: bytes) -> dict[str, str]:
    file.write_bytes(data)
    return {member.name: content.read().decode() for member, content in members(file)}


KINDS = {"tar": tarred, "tgz": lambda: gzip.compress(tarred(), mtime=0), "zip": zipped}


@pytest.fixture(params=KINDS)
def archive(request: pytest.FixtureRequest) -> bytes:
    make: Callable[[], bytes] = KINDS[request.param]
    return make()


def test_every_kind_is_read(tmp_path: Path, archive: bytes) -> None:
    assert read(tmp_path / "a", archive) == TEXTS


@pytest.mark.parametrize("make", [KINDS["tgz"], KINDS["zip"]])
def test_a_flipped_bit_is_refused_or_changes_nothing(
    tmp_path: Path, make: Callable[[], bytes]
) -> None:
    archive = make()
    refused = 0
    for bit in np.random.default_rng(11).integers(len(archive) * 8, size=200):
        data = bytearray(archive)
        data[bit // 8] ^= 1 << bit % 8
        try:
            assert read(tmp_path / "a", bytes(data)) == TEXTS  # a date, or the like
        except ArchiveError:
            refused += 1
    assert refused > 100


def test_a_flipped_bit_in_a_header_of_a_plain_tar_is_refused(tmp_path: Path) -> None:
    archive = tarred()
    for bit in range(8):
        data = bytearray(archive)
        data[2 * 512 + bit] ^= 1 << bit  # the second member's name
        with pytest.raises(ArchiveError, match="bad checksum at byte 1,024"):
            read(tmp_path / "a", bytes(data))


@pytest.mark.parametrize("share", [0.0, 0.2, 0.5, 0.9, 0.99])
def test_one_that_is_cut_short_is_refused(tmp_path: Path, share: float, archive: bytes) -> None:
    archive = archive.rstrip(b"\0")  # a tar is padded to 10,240 bytes
    with pytest.raises(ArchiveError):
        read(tmp_path / "a", archive[: int(len(archive) * share)])


def test_a_tar_that_ends_between_two_members_is_refused(tmp_path: Path) -> None:
    whole = tarred()
    with pytest.raises(ArchiveError, match="empty header"):
        read(tmp_path / "a", whole[: 2 * 512])
    with pytest.raises(ArchiveError, match="empty header"):
        read(tmp_path / "a", gzip.compress(whole[: 2 * 512]))


def test_what_stands_behind_the_end_is_not_passed_over(tmp_path: Path) -> None:
    with pytest.raises(ArchiveError, match="it goes on behind its end"):
        read(tmp_path / "a", tarred({"1": "a"}) + tarred({"2": "b"}))
    with pytest.raises(ArchiveError, match="it goes on behind its end"):
        read(tmp_path / "a", gzip.compress(tarred({"1": "a"}) + tarred({"2": "b"})))
    with pytest.raises(ArchiveError, match="Not a gzipped file"):
        read(tmp_path / "a", gzip.compress(tarred()) + b"<html>")


def test_a_gzip_file_of_several_parts_is_one_archive(tmp_path: Path) -> None:
    whole = tarred()
    parts = gzip.compress(whole[:7000]) + gzip.compress(whole[7000:]) + bytes(100)
    assert read(tmp_path / "a", parts) == TEXTS


def test_members_that_are_no_files_have_no_content(tmp_path: Path) -> None:
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w") as tar:
        for name, kind in {
            "f": tarfile.DIRTYPE,
            "s": tarfile.SYMTYPE,
            "p": tarfile.FIFOTYPE,
        }.items():
            info = tarfile.TarInfo(name)
            info.type, info.linkname = kind, "/etc/hostname"
            tar.addfile(info)
    (tmp_path / "a").write_bytes(buffer.getvalue())
    found = {m.name: (m.kind, content.read()) for m, content in members(tmp_path / "a")}
    assert found == {"f": ("folder", b""), "s": ("link", b""), "p": ("special file", b"")}


def test_an_encrypted_zip_is_refused(tmp_path: Path) -> None:
    data = bytearray(zipped({"1": "a"}))
    data[data.index(b"PK\1\2") + 8] |= 1  # the flags of the member in the directory
    with pytest.raises(ArchiveError, match="it is encrypted"):
        read(tmp_path / "a", bytes(data))


@pytest.mark.parametrize("size", [b"\x80" + bytes(7) + b"\1" + bytes(3), b"\xff" * 12])
def test_a_size_that_cannot_be_is_refused(tmp_path: Path, size: bytes) -> None:
    """2**24 bytes of a name, and -1 byte of a file, which `tarfile` would read for ever."""
    info = tarfile.TarInfo("1.txt")
    info.type = tarfile.GNUTYPE_LONGNAME if size[0] == 0x80 else tarfile.REGTYPE
    header = bytearray(info.tobuf())
    header[124:136] = size
    header[148:156] = b" " * 8
    header[148:156] = b"%06o\0 " % sum(header[:512])
    with pytest.raises(ArchiveError, match="a header with a size"):
        read(tmp_path / "a", bytes(header) + tarred())


@pytest.mark.parametrize("data", [b"", b"PK", b"<html>" * 200, b"\x1f\x8b", bytes(2000)])
def test_what_is_no_archive_is_refused_or_empty(tmp_path: Path, data: bytes) -> None:
    if data == bytes(2000):
        assert read(tmp_path / "a", data) == {}
    else:
        with pytest.raises(ArchiveError):
            read(tmp_path / "a", data)
