"""Records of a data set in parts, kept on disk."""

import tracemalloc
from collections.abc import Iterator

from storage.datasets.reader import SourceRecord
from storage.shards import Part
from tasks.pipeline.parts import PartRecords

MOST_MIB = 16
"""Memory for 90,000 studies of 30,000 patients more; their records as a list take 30 MiB."""


def test_splits_may_alternate_and_every_record_is_in_one_part() -> None:
    records = [SourceRecord("test" if n % 3 == 0 else "train", str(n)) for n in range(10)]
    parts = PartRecords("archive", records, 4)
    assert [(part.split, part.index, len(own)) for part, own in parts.items()] == [
        ("train", 0, 4),
        ("test", 1, 4),
        ("train", 2, 2),
    ]
    assert sorted(r.key for own in parts.values() for r in own) == sorted(r.key for r in records)
    assert all(record.split == part.split for part, own in parts.items() for record in own)


def test_a_patient_stays_in_the_split_of_the_first_study() -> None:
    records = [
        SourceRecord("train", "a", "p1"),
        SourceRecord("test", "b", "p2"),
        SourceRecord("test", "c", "p1"),
        SourceRecord("test", "d"),
        SourceRecord("train", "e", "p1"),
    ]
    parts = PartRecords("archive", records, 1000)
    assert [r.key for own in parts.values() for r in own if r.split_of_patient] == ["c"]
    [crossing] = [r for own in parts.values() for r in own if r.split_of_patient]
    assert crossing.split_of_patient == "train"


def test_a_change_of_one_record_changes_the_digest_of_its_part_alone() -> None:
    records = [SourceRecord("train", str(n)) for n in range(6)]
    before = PartRecords("archive", records, 2).digests
    after = PartRecords("archive", [*records[:2], SourceRecord("train", "x"), *records[3:]], 2)
    assert [name for name in before if before[name] != after.digests[name]] == [
        Part("archive", "train", 1).name
    ]


def test_memory_grows_little_with_the_number_of_studies() -> None:
    small, large = (_peak_mib(studies) for studies in (10_000, 100_000))
    assert large - small < MOST_MIB


def _peak_mib(studies: int) -> float:
    def records() -> Iterator[SourceRecord]:
        for n in range(studies):
            yield SourceRecord("train", f"files/p1/p{n // 3}/s{n}", f"p{n // 3}")

    tracemalloc.start()
    PartRecords("archive", records(), 1000)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    return peak / 2**20
