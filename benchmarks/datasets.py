"""How fast reports are read, and in how much memory: made-up reports in the layout of MIMIC-CXR.

A tree of reports without images, with the tables of splits and of CheXpert's labels, is read and
selected from as the ingest stage does it, 1,000 reports at a time. The peak memory of the whole
tree is compared with that of a tenth of it, each read in a process of its own.
"""

from __future__ import annotations

import gzip
import random
import resource
import sys
import tempfile
import time
from concurrent.futures import ProcessPoolExecutor
from itertools import islice
from multiprocessing import get_context
from pathlib import Path
from typing import NamedTuple

from benchmarks.targets import judge
from storage.datasets.registry import find_declaration

STUDIES = 20_000
STUDIES_PER_SHARD = 1_000
SENTENCES = (
    "The lungs are clear.",
    "Heart size is normal.",
    "There is a small left pleural effusion\n with adjacent atelectasis.",
    "No pneumothorax is seen on this examination.",
    "Mediastinal contours are within normal limits.",
    "A right-sided central line ends in the superior vena cava.",
)
FINDINGS, IMPRESSION = 8, 2
"""Sentences: 350 characters of findings, as in MIMIC-CXR (median)."""


class Measured(NamedTuple):
    """Reports read, CPU seconds of all and of reading tables, peak resident memory."""

    reports: int
    cpu_seconds: float
    index_seconds: float
    peak_mb: float


def main() -> int:
    """Measure, print, and judge by the targets."""
    with tempfile.TemporaryDirectory() as folder:
        whole, tenth = Path(folder, "whole"), Path(folder, "tenth")
        write_reports(whole, STUDIES)
        write_reports(tenth, STUDIES // 10)
        small, large = (_in_new_process(root) for root in (tenth, whole))
    speed = large.reports / large.cpu_seconds
    growth = large.peak_mb - small.peak_mb
    print(
        f"{large.reports:,} reports in {large.cpu_seconds:.1f} CPU s ({speed:,.0f} a second), "
        f"{large.index_seconds:.1f} of them for the tables; peak {large.peak_mb:.0f} MB, "
        f"{small.peak_mb:.0f} MB with {small.reports:,}"
    )
    figures = {"reports a CPU second": speed, "MB of growth, ten times the reports": growth}
    return judge("datasets", figures)


def write_reports(root: Path, studies: int) -> None:
    """Write the tree; three studies a patient."""
    rng = random.Random(0)  # noqa: S311
    root.mkdir()
    splits = ["dicom_id,study_id,subject_id,split"]
    labels = ["subject_id,study_id,Atelectasis,Edema,No Finding,Pleural Effusion"]
    for number in range(studies):
        patient, study = 10_000_000 + number // 3 * 7, 50_000_000 + number * 11
        path = root / f"files/p{str(patient)[:2]}/p{patient}/s{study}.txt"
        path.parent.mkdir(parents=True, exist_ok=True)
        findings, impression = (
            "\n ".join(rng.choices(SENTENCES, k=sentences)) for sentences in (FINDINGS, IMPRESSION)
        )
        path.write_text(
            "                                 FINAL REPORT\n EXAMINATION:  CHEST (PA AND LAT)\n \n"
            " INDICATION:  ___ year old woman with cough  // pneumonia?\n \n COMPARISON:  ___\n \n"
            f" FINDINGS: \n \n {findings}\n \n IMPRESSION: \n \n {impression}\n"
        )
        splits.append(f"{study}-0,{study},{patient},train")
        labels.append(f"{patient},{study},,1.0,,-1.0")
    for name, rows in (("split", splits), ("chexpert", labels)):
        with gzip.open(root / f"mimic-cxr-2.0.0-{name}.csv.gz", "wt") as table:
            table.write("\n".join(rows) + "\n")


def read_reports(root: Path) -> Measured:
    """Read all of a tree."""
    declaration = find_declaration("mimic-cxr")
    reader, selection = declaration.open(root), declaration.select(root, None)
    start = time.process_time()
    records = reader.records()
    shard = list(islice(records, STUDIES_PER_SHARD))
    indexed = time.process_time()
    reports = 0
    while shard:
        selected = selection.apply(list(reader.read(shard)))
        reports += selected.funnel[-1].studies
        shard = list(islice(records, STUDIES_PER_SHARD))
    end = time.process_time()
    peak_mb = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
    return Measured(reports, end - start, indexed - start, peak_mb)


def _in_new_process(root: Path) -> Measured:
    with ProcessPoolExecutor(1, get_context("spawn")) as process:
        return process.submit(read_reports, root).result()


if __name__ == "__main__":
    sys.exit(main())
