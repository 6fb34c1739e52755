"""The store in a bucket: the same code against an S3 server on this machine."""

import logging
from collections.abc import Iterator

import boto3
import pytest
from moto.server import ThreadedMotoServer

from storage.catalogue import query_rows, write_catalogue
from storage.manifests import Manifest, is_complete, read_manifests, write_manifest
from storage.shards import Part, read_shard, shard_path, table_from_rows, write_shard
from storage.store import Store

PART = Part("openi", "train", 0)


@pytest.fixture(scope="module")
def store() -> Iterator[Store]:
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("AWS_ACCESS_KEY_ID", "test")
        patch.setenv("AWS_SECRET_ACCESS_KEY", "test")
        patch.setenv("AWS_DEFAULT_REGION", "us-east-1")
        logging.getLogger("werkzeug").setLevel(logging.ERROR)
        server = ThreadedMotoServer(ip_address="127.0.0.1", port=0)
        server.start()
        host, port = server.get_host_and_port()
        boto3.client("s3", endpoint_url=f"http://{host}:{port}").create_bucket(Bucket="archive")
        yield Store(f"s3://archive/store?endpoint_override={host}:{port}&scheme=http")
        server.stop()


def test_a_stage_lives_in_a_bucket_as_on_a_disk(store: Store) -> None:
    store.require_writable()
    row = {"dataset": "openi", "split": "train", "study_id": "CXR1", "findings": "Clear."}
    path = shard_path("clean_reports", PART, "clean")
    shard = write_shard(store, path, "clean_reports", table_from_rows("clean_reports", [row]))
    manifest = Manifest("clean", PART, "d", {}, {}, {"clean_reports": shard}, "report", 1, 1)
    write_manifest(store, manifest)

    assert read_manifests(store, "openi") == [manifest]
    assert is_complete(store, manifest)
    assert read_shard(store, shard).to_pylist()[0]["findings"] == "Clear."
    assert store.read("clean_reports/nothing.parquet") is None


def test_the_catalogue_reads_a_bucket(store: Store) -> None:
    _, rows = query_rows(store.root, "SELECT study_id, findings FROM clean_reports")
    assert rows == [("CXR1", "Clear.")]
    assert write_catalogue(store) is None
