"""Where a store may be: checked before anything is opened, and told in time."""

import socket
import threading
from pathlib import Path

import pytest

from storage import store as stores
from storage.places import checked_root, read_bucket
from storage.store import Store, StoreError


@pytest.mark.parametrize(
    ("given", "sentence"),
    [
        ("", "the store has no name"),
        ("  ", "the store has no name"),
        ("s3://", "s3:// names no bucket"),
        ("s3:///prefix", "s3:// names no bucket"),
        ("gs://", "gs:// names no bucket"),
        ("s3:/bucket/prefix", "two slashes"),
        ("nowhere://bucket", "nowhere:// is not a store"),
        ("https://host/store", "https:// is not a store"),
        ("file://host/store", "folder of another machine"),
        ("s3://bucket/a#b", "%23"),
        ("s3://bucket?allow_bucket_creation=1", "takes no option allow_bucket_creation"),
        ("~no-such-user/store", "no such user"),
    ],
)
def test_what_is_no_store_is_one_sentence(given: str, sentence: str) -> None:
    with pytest.raises(StoreError, match=sentence):
        Store(given)


@pytest.mark.parametrize(
    "given",
    [
        "s3://KEY:HUSH@bucket/prefix",
        "s3://KEY:HU/SH@bucket/prefix",
        "S3://KEY:HUSH@bucket",
        "s3://KEY:HUSH",
        "s3://HUSH@bucket",
        "gs://HUSH@bucket",
        "s3://bucket?secret_key=HUSH",
        "s3://bucket?endpoint_override=http://u:HUSH@host",
    ],
)
def test_a_key_in_an_address_is_refused_and_not_repeated(given: str) -> None:
    with pytest.raises(StoreError) as caught:
        Store(given)
    assert "HU" not in str(caught.value)


def test_a_folder_is_absolute_however_it_is_written(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("HOME", str(tmp_path))
    for given in ("store", "./store", "store/", "~/store", f"file://{tmp_path}/st%6Fre"):
        assert checked_root(given) == str(tmp_path / "store")
    assert checked_root("a:b") == str(tmp_path / "a:b")


def test_the_prefix_of_a_bucket_has_no_slash_at_its_end() -> None:
    for given in ("s3://bucket/a b/", "s3://bucket/a%20b", "S3://bucket/a b//"):
        assert read_bucket(given).base == "bucket/a b"


def test_a_bucket_that_does_not_exist_is_named(bucket: Store) -> None:
    elsewhere = bucket.root.replace("archive", "no-such-bucket")
    with pytest.raises(StoreError, match="there is no bucket no-such-bucket: make it first"):
        Store(elsewhere).require_writable()


@pytest.fixture
def impatient(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """Two seconds of patience instead of twenty, and no credentials of the user's own."""
    monkeypatch.setattr(stores, "_FIRST_CONTACT_S", 2.0)
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", "test")
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "test")
    monkeypatch.delenv("GOOGLE_APPLICATION_CREDENTIALS", raising=False)


@pytest.mark.usefixtures("impatient")
def test_a_server_that_never_answers_is_given_up() -> None:
    with socket.create_server(("127.0.0.1", 0)) as silent:
        port = silent.getsockname()[1]
        store = Store(f"s3://b/x?endpoint_override=127.0.0.1:{port}&scheme=http")
        with pytest.raises(StoreError, match="has not answered for 2 s") as caught:
            store.require_writable()
    assert caught.value.transient


@pytest.mark.usefixtures("impatient")
def test_google_cloud_without_credentials_says_what_to_set() -> None:
    with pytest.raises(StoreError, match="set GOOGLE_APPLICATION_CREDENTIALS"):
        Store("gs://bucket/prefix").require_writable()


def test_a_file_is_no_store(tmp_path: Path) -> None:
    file = tmp_path / "file"
    file.write_text("not a folder")
    with pytest.raises(StoreError, match="is a file: choose another --store"):
        Store(str(file)).require_writable()


def test_many_writers_of_one_store_leave_no_partial_file(tmp_path: Path) -> None:
    store = Store(str(tmp_path))
    writers = [
        threading.Thread(target=store.write, args=(f"t/{n % 3}", bytes([n]) * 1000))
        for n in range(20)
    ]
    for writer in writers:
        writer.start()
    for writer in writers:
        writer.join()
    assert store.list("") == ["t/0", "t/1", "t/2"]
