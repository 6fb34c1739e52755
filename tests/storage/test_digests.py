"""Digests of real files, and how often a file is read for them."""

import hashlib
import os
import sqlite3
import subprocess
import sys
import time
from pathlib import Path

import pytest

from storage import digests
from storage.digests import MISSING, UNREADABLE, combined_digest, content_digests

A_CLOCK_TICK_S = 0.05
"""Longer than a tick of the clock that the kernel stamps files with."""


@pytest.fixture
def database(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Where digests are kept, also those of files that were written just now."""
    monkeypatch.setenv("VIVIDMED_HOME", str(tmp_path / "home"))
    monkeypatch.setattr(digests, "_SETTLED_NS", -1)
    return tmp_path / "home" / "digests.sqlite"


@pytest.fixture
def reads(database: Path, monkeypatch: pytest.MonkeyPatch) -> list[Path]:
    """The files that were read, not remembered."""
    read: list[Path] = []
    one = digests._read

    def noted(file: Path) -> tuple[str, str, bool]:
        read.append(file)
        return one(file)

    monkeypatch.setattr(digests, "_read", noted)
    return read


@pytest.fixture
def image(tmp_path: Path) -> Path:
    file = tmp_path / "image.png"
    file.write_bytes(b"first")
    return file


def _sha256(data: bytes) -> str:
    return hashlib.sha256(data).hexdigest()


def _replace(file: Path, data: bytes) -> None:
    time.sleep(A_CLOCK_TICK_S)
    file.write_bytes(data)


def test_a_file_is_read_once(image: Path, reads: list[Path]) -> None:
    for _ in range(3):
        assert content_digests([image, image]) == {image: _sha256(b"first")}
    assert reads == [image]


def test_other_content_of_the_same_size_and_time_is_seen(image: Path, reads: list[Path]) -> None:
    before, status = content_digests([image]), image.stat()
    _replace(image, b"other")
    os.utime(image, ns=(status.st_atime_ns, status.st_mtime_ns))
    now = image.stat()
    assert (now.st_size, now.st_mtime_ns) == (status.st_size, status.st_mtime_ns)
    assert content_digests([image]) == {image: _sha256(b"other")} != before
    assert reads == [image] * 2


def test_a_file_that_changed_just_now_is_read_again(
    image: Path, reads: list[Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.undo()
    monkeypatch.setenv("VIVIDMED_HOME", str(image.parent / "home"))
    content_digests([image])
    with sqlite3.connect(image.parent / "home" / "digests.sqlite") as db:
        assert db.execute("SELECT count(*) FROM files").fetchone() == (0,)


def test_what_is_no_file_has_a_word_for_a_digest(tmp_path: Path, image: Path) -> None:
    os.mkfifo(tmp_path / "pipe")
    (tmp_path / "loop").symlink_to("loop")
    absent = [tmp_path / "none", image / "below", Path(f"{tmp_path}/\0")]
    unreadable = [tmp_path / "pipe", tmp_path / "loop", Path("/dev/null")]
    expected = dict.fromkeys(absent, MISSING) | dict.fromkeys(unreadable, UNREADABLE)
    assert content_digests([*absent, *unreadable]) == expected


def test_a_folder_is_the_names_and_contents_of_its_files(tmp_path: Path, reads: list[Path]) -> None:
    series = tmp_path / "series"
    (series / "folder").mkdir(parents=True)
    for name in ("1.dcm", "2.dcm"):
        (series / name).write_bytes(name.encode())

    def digest() -> str:
        return content_digests([series])[series]

    seen = [digest()]
    (series / ".DS_Store").write_bytes(b"a file browser was here")
    (series / "lost").symlink_to("nowhere")
    assert digest() == seen[0]
    _replace(series / "2.dcm", b"other")
    seen.append(digest())
    (series / "2.dcm").rename(series / "3.dcm")
    seen.append(digest())
    (series / "1.dcm").unlink()
    seen.append(digest())
    assert len(set(seen)) == 4
    assert reads.count(series / "1.dcm") == 1


def test_the_order_and_the_paths_count(tmp_path: Path, image: Path, database: Path) -> None:
    copy = tmp_path / "copy.png"
    copy.write_bytes(image.read_bytes())
    made = {combined_digest(paths) for paths in ([], [image], [copy], [image, copy], [copy, image])}
    assert len(made) == 5


def test_a_name_that_is_not_utf8_is_a_name(tmp_path: Path, reads: list[Path]) -> None:
    file = tmp_path / os.fsdecode(b"r\xf6ntgen.png")
    file.write_bytes(b"first")
    assert [combined_digest([file]), *content_digests([file]).values()][1] == _sha256(b"first")
    assert reads == [file]


@pytest.mark.parametrize("content", [b"not a database", b"SQLite format 3\0" + b"\xff" * 5000])
def test_a_damaged_database_is_put_aside(
    image: Path, reads: list[Path], database: Path, content: bytes
) -> None:
    database.parent.mkdir()
    database.write_bytes(content)
    for _ in range(3):
        assert content_digests([image]) == {image: _sha256(b"first")}
    assert database.with_name("digests.sqlite.damaged").read_bytes() == content
    assert len(reads) < 3


def test_another_table_of_the_same_name_is_put_aside(
    image: Path, reads: list[Path], database: Path
) -> None:
    database.parent.mkdir()
    with sqlite3.connect(database) as db:
        db.execute("CREATE TABLE files (name TEXT)")
    for _ in range(3):
        assert content_digests([image]) == {image: _sha256(b"first")}
    assert len(reads) < 3


def test_without_a_place_for_the_database_files_are_read(
    image: Path, reads: list[Path], database: Path
) -> None:
    database.parent.write_text("a file where the folder should be")
    for _ in range(2):
        assert content_digests([image]) == {image: _sha256(b"first")}
    assert reads == [image] * 2


def test_processes_share_the_database(tmp_path: Path, reads: list[Path], database: Path) -> None:
    files = [tmp_path / f"{n}.png" for n in range(300)]
    for n, file in enumerate(files):
        file.write_bytes(bytes([n % 256]) * n)
    code = (
        "import sys; from pathlib import Path; from storage import digests\n"
        "digests._SETTLED_NS, digests._BATCH = -1, 10\n"
        "print(digests.combined_digest(map(Path, sys.argv[1:])))"
    )
    orders = [files, files[::-1], files, files[::-1]]
    workers = [
        subprocess.Popen(
            [sys.executable, "-c", code, *map(str, order)], stdout=subprocess.PIPE, text=True
        )
        for order in orders
    ]
    printed = [worker.communicate()[0].strip() for worker in workers]
    assert printed == [combined_digest(order) for order in orders]
    assert reads == []
