"""ReXGroundingCT (2025): findings of CT-RATE reports, segmented by radiologists.

`dataset.json` lists the scans of each split with their findings as sentences and a category each;
masks are NIfTI files named as the CT. The split is that of the JSON file, whatever the name of the
scan begins with. The findings of a scan are its findings section. The CTs are those of CT-RATE's
corrected release, which is a download of its own: without a CT its masks cannot be placed.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Iterator, Mapping
from functools import cached_property
from pathlib import Path
from typing import Any

from storage.datasets.declaration import Declaration
from storage.datasets.finding_masks import read_finding_masks
from storage.datasets.image_files import ImageFiles
from storage.datasets.json_files import by_name, read_json
from storage.datasets.marks import MarkError, described, report_of, target_of
from storage.datasets.reader import DatasetError, SourceRecord, Study, StudyImage
from storage.gold import Gold, GoldMask, GoldPhrase
from storage.images.types import ImageError
from storage.paths import listing_digest
from storage.rejects import Reject

LIST = "dataset.json"
SPLIT_NAMES = {"val": "validate", "valid": "validate", "validation": "validate"}
MASKS = ("segmentations/{image}", "masks/{image}", "*segmentations*/{image}", "*masks*/{image}")
"""Where masks may be; the name of their folder is not documented."""

SUFFIX = ".nii.gz"


class RexGroundingCtReader:
    """Reads the list whole: 3,142 scans."""

    def __init__(self, declaration: Declaration, source: Path) -> None:
        self._declaration = declaration
        self._source = source
        self._masks = ImageFiles(source, MASKS)

    def records(self) -> Iterator[SourceRecord]:
        """A record a scan; the patient is the number in its name."""
        for key, (split, _) in self._scans.items():
            yield SourceRecord(split, key, "_".join(key.split("_")[:2]))

    def fingerprint(self) -> str:
        """SHA-256 of the declaration and list, and of the state of masks and CTs."""
        digest = hashlib.sha256(self._declaration.file.read_bytes())
        digest.update((self._source / LIST).read_bytes())
        names = [f"{key}{SUFFIX}" for key in self._scans]
        digest.update(listing_digest(map(self._masks.find, names)).encode())
        digest.update(listing_digest(map(self._ct, self._scans)).encode())
        return digest.hexdigest()

    def census(self) -> Mapping[str, int]:
        """How many findings and instances there are."""
        entries = [entry for _, entry in self._scans.values()]
        counts = [entry.get("entity_counts") or {} for entry in entries]
        return {
            "images": len(entries),
            "phrases": sum(len(entry.get("findings") or {}) for entry in entries),
            "masks": sum(int(count) for of_scan in counts for count in of_scan.values()),
        }

    def read(self, records: Iterable[SourceRecord]) -> Iterator[Study | Reject]:
        """The findings and masks of each scan; masks that cannot be used are left out."""
        for record in records:
            entry = self._scans[record.key][1]
            if entry:
                yield self._study(record, entry)
                continue
            detail = f"{record.key} has no name, or that of an entry before it"
            yield Reject(record.key, record.key, "row_malformed", detail)

    def _study(self, record: SourceRecord, entry: Mapping[str, Any]) -> Study:
        path = self._ct(record.key)
        file = described(path)
        left_out: list[Reject] = []
        phrases = [self._phrase(record.key, *item, entry, left_out) for item in _findings(entry)]
        image = StudyImage(
            record.key,
            str(path),
            "CT",
            None,
            file.shape if file else None,
            file.spacing_mm if file else None,
        )
        try:
            masks = tuple(self._gold_masks(record.key, path, phrases, left_out))
        except ImageError as error:
            masks = ()
            what = f"masks of {record.key}"
            left_out.append(Reject(record.key, what, error.reason, str(error), record.key))
        return Study(
            record.key,
            report_of(phrase.phrase for phrase in phrases) or None,
            None,
            self._declaration.source,
            record.patient_id,
            (image,),
            gold=Gold(tuple(phrases), masks=masks),
            left_out=tuple(left_out),
        )

    def _phrase(
        self, key: str, number: str, words: str, entry: Mapping[str, Any], left_out: list[Reject]
    ) -> GoldPhrase:
        label = (entry.get("categories") or {}).get(number)
        target = None
        if label is not None:
            try:
                target = target_of(self._declaration.targets, str(label))
            except MarkError as error:
                left_out.append(error.reject(key, f"category of finding {number}", key))
        return GoldPhrase(number, words, label and str(label), target, image_id=key)

    def _gold_masks(
        self, key: str, ct: Path, phrases: Iterable[GoldPhrase], left_out: list[Reject]
    ) -> Iterator[GoldMask]:
        path = self._masks.find(f"{key}{SUFFIX}")
        if not path.exists():
            return  # the masks of the test split are not released
        by_number = {phrase.phrase_id: phrase for phrase in phrases}
        for channel, instance, mask in read_finding_masks(path, ct):
            phrase = by_number.get(str(channel))
            if phrase is None:
                detail = f"{path.name} has a mask of finding {channel}, which {LIST} does not list"
                left_out.append(Reject(key, path.name, "label_not_declared", detail, key))
                continue
            yield GoldMask(
                key,
                mask,
                phrase.label or "finding",
                phrase.target,
                phrase_id=phrase.phrase_id,
                instance=instance,
            )

    def _ct(self, key: str) -> Path:
        """Where CT-RATE has a volume, the corrected release first."""
        prefix, number, letters = ([*key.split("_"), "", "", ""])[:3]
        inside = f"{prefix}_{number}/{prefix}_{number}_{letters}/{key}{SUFFIX}"
        tops = [f"{top}{prefix}_fixed" for top in ("dataset/", "", "CT-RATE/dataset/")]
        paths = [self._source / top / inside for top in tops]
        return next((path for path in paths if path.exists()), paths[0])

    @cached_property
    def _scans(self) -> dict[str, tuple[str, Mapping[str, Any]]]:
        """Split and entry by the name of the scan."""
        content = read_json(self._source / LIST, dict)
        splits = self._declaration.splits
        found: dict[str, tuple[str, Mapping[str, Any]]] = {}
        for said, entries in content.items():
            split = SPLIT_NAMES.get(said, said)
            split = split if split in splits else splits[-1]
            for name, entry in by_name(
                entries if isinstance(entries, list) else (), "name"
            ).items():
                key = name.removesuffix(SUFFIX)
                is_new = entry and key not in found
                found[key if is_new else f"{said} {name}"] = (split, entry if is_new else {})
        if not found:
            raise DatasetError(f"{self._source / LIST} lists no scans")
        return found


def _findings(entry: Mapping[str, Any]) -> list[tuple[str, str]]:
    """The number of each finding, which is its channel, and its words."""
    findings = entry.get("findings")
    pairs = findings.items() if isinstance(findings, dict) else enumerate(findings or ())
    return [(str(number), str(words).strip()) for number, words in pairs]
