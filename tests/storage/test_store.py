import os
import resource
import subprocess
import sys
from pathlib import Path

import pytest

from storage.store import Store, StoreError


def test_a_file_is_there_whole_or_not_at_all(tmp_path: Path) -> None:
    store = Store(str(tmp_path))
    store.write("a/b/part.bin", b"first")
    store.write("a/b/part.bin", b"second")
    assert store.read("a/b/part.bin") == b"second"
    assert store.list("a") == ["a/b/part.bin"]
    assert store.read("a/none") is None
    assert store.list("nowhere") == []


def test_no_partial_file_stays_behind(tmp_path: Path) -> None:
    store = Store(str(tmp_path))
    (tmp_path / "table").mkdir()
    (tmp_path / "table" / "part.bin").mkdir()  # the rename onto a folder fails
    with pytest.raises(StoreError, match=r"cannot write .*part\.bin"):
        store.write("table/part.bin", b"data")
    assert [p.name for p in (tmp_path / "table").iterdir()] == ["part.bin"]


def test_a_store_below_a_file_is_refused_in_one_sentence(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("not a folder")
    with pytest.raises(StoreError, match=r"cannot write .*choose another --store"):
        Store(str(tmp_path / "file" / "store")).require_writable()


@pytest.mark.skipif(os.geteuid() == 0, reason="root may write anywhere")
def test_a_read_only_store_is_refused(tmp_path: Path) -> None:
    tmp_path.chmod(0o500)
    with pytest.raises(StoreError, match="Permission denied"):
        Store(str(tmp_path / "store")).require_writable()


def test_no_room_left_is_said_and_leaves_the_old_file(tmp_path: Path) -> None:
    store = Store(str(tmp_path))
    store.write("part.bin", b"old")
    code = (
        "import resource, signal, sys\n"
        "from storage.store import Store, StoreError\n"
        "signal.signal(signal.SIGXFSZ, signal.SIG_IGN)\n"
        "resource.setrlimit(resource.RLIMIT_FSIZE, (1000, 1000))\n"
        "try:\n"
        "    Store(sys.argv[1]).write('part.bin', bytes(5000))\n"
        "except StoreError as error:\n"
        "    print(error)\n"
    )
    result = subprocess.run(
        [sys.executable, "-c", code, str(tmp_path)], capture_output=True, text=True, check=True
    )
    assert "no room left" in result.stdout
    assert store.read("part.bin") == b"old"
    assert store.list("") == ["part.bin"]
    assert resource.getrlimit(resource.RLIMIT_FSIZE)[0] != 1000


def test_an_unknown_uri_is_refused() -> None:
    with pytest.raises(StoreError, match="is not a store"):
        Store("nowhere://bucket").require_writable()
