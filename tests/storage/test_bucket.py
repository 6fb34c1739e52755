"""The store in a bucket: the same code against an S3 server on this machine."""

from storage.catalogue import query_rows, write_catalogue
from storage.manifests import Manifest, is_complete, read_manifests, write_manifest
from storage.shards import Part, read_shard, shard_path, table_from_rows, write_shard
from storage.store import Store

PART = Part("openi", "train", 0)


def test_a_stage_lives_in_a_bucket_as_on_a_disk(bucket: Store) -> None:
    bucket.require_writable()
    row = {"dataset": "openi", "split": "train", "study_id": "CXR1", "findings": "Clear."}
    path = shard_path("clean_reports", PART, "clean")
    shard = write_shard(bucket, path, "clean_reports", table_from_rows("clean_reports", [row]))
    manifest = Manifest("clean", PART, "d", {}, {}, {"clean_reports": shard}, "report", 1, 1)
    write_manifest(bucket, manifest)

    assert read_manifests(bucket, "openi") == [manifest]
    assert is_complete(bucket, manifest)
    assert read_shard(bucket, shard).to_pylist()[0]["findings"] == "Clear."
    assert bucket.read("clean_reports/nothing.parquet") is None


def test_the_catalogue_reads_a_bucket(bucket: Store) -> None:
    _, rows = query_rows(bucket.root, "SELECT study_id, findings FROM clean_reports")
    assert rows == [("CXR1", "Clear.")]
    _, rows = query_rows(bucket.root, "SELECT stage, rows_in, rejects FROM manifests")
    assert rows == [("clean", 1, {})]
    assert write_catalogue(bucket) is None
