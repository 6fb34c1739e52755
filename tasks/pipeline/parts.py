"""The parts of a data set: which records are in which shard.

Records are put aside on disk as the reader gives them, so that a data set of any size takes little
memory. What is kept of each patient is the split of the patient's first study.
"""

from __future__ import annotations

import hashlib
import marshal
from collections.abc import Iterable, Iterator, Mapping

from storage.datasets.reader import SourceRecord
from storage.datasets.spool import Spool
from storage.plans import Plan
from storage.shards import Part

Records = tuple[SourceRecord, ...]


class PartRecords(Mapping[Part, Records]):
    """The records of each part, read from disk when they are asked for.

    Parts are numbered over all splits, as a path in the store names no split.

    digests: SHA-256 of the records' keys, by the part's name.
    """

    def __init__(self, dataset: str, records: Iterable[SourceRecord], size: int) -> None:
        """Put all records aside.

        Args:
            dataset: the data set's name.
            records: in the order of the source; splits may alternate.
            size: records a part.

        Raises:
            DatasetError: if the source cannot be read, or there is no room for its records.
        """
        self._spool = Spool()
        self._places: dict[Part, int] = {}
        self.digests: dict[str, str] = {}
        by_split: dict[str, list[SourceRecord]] = {}
        for record in _with_patients_apart(records):
            waiting = by_split.setdefault(record.split, [])
            waiting.append(record)
            if len(waiting) == size:
                self._add(dataset, waiting)
                waiting.clear()
        for waiting in filter(None, by_split.values()):
            self._add(dataset, waiting)
        self._spool.finish()

    def _add(self, dataset: str, records: list[SourceRecord]) -> None:
        part = Part(dataset, records[0].split, len(self._places))
        self._places[part] = self._spool.add(marshal.dumps([tuple(record) for record in records]))
        keys = "\n".join(record.key for record in records)
        self.digests[part.name] = hashlib.sha256(keys.encode()).hexdigest()

    def __getitem__(self, part: Part) -> Records:
        records = marshal.loads(self._spool.read(self._places[part]))  # noqa: S302 written above
        return tuple(SourceRecord(*record) for record in records)

    def __iter__(self) -> Iterator[Part]:
        return iter(self._places)

    def __len__(self) -> int:
        return len(self._places)

    def plan(self, dataset: str, stages: Iterable[str]) -> Plan:
        """What a run of these stages is going to make of the data set."""
        return Plan(dataset, tuple(stages), self.digests)


def _with_patients_apart(records: Iterable[SourceRecord]) -> Iterator[SourceRecord]:
    """The records; each whose patient has an earlier one in another split says which split."""
    first_split: dict[str, str] = {}
    for record in records:
        if record.patient_id is None:
            yield record
            continue
        split = first_split.setdefault(record.patient_id, record.split)
        yield record if split == record.split else record._replace(split_of_patient=split)
