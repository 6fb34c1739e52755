"""Archives and gzipped tables of OpenI, bytes damaged: their checksums let no other rows pass."""

import gzip
import io
import tarfile
import zipfile
from functools import cache
from pathlib import Path

from hypothesis.strategies import SearchStrategy

from storage.datasets.openi import ARCHIVE
from storage.datasets.openi_images import METADATA, METADATA_COLUMNS
from storage.datasets.reader import Study
from storage.datasets.registry import find_declaration
from storage.rejects import Reject
from tests.fuzz.edits import Damaged, damaged, edited
from tests.fuzz.studies import read_studies, same_or_rejected
from tests.fuzz.trials import Kind

_REPORTS = 12
_HEADER = range(40)


def inputs() -> SearchStrategy[Damaged]:
    """Damaged containers."""
    return damaged(_containers(), _HEADER)


def outcome(given: Damaged, folder: Path) -> str | None:
    """Read the reports from the damaged file and an intact other one."""
    intact = _intact(folder)
    data = edited(_containers()[given.original], given.edits)
    studies, rejects = _read(folder, given.original, data)
    return same_or_rejected(studies, rejects, intact)


def _read(folder: Path, name: str, data: bytes) -> tuple[list[Study], list[Reject]]:
    table = data if name == "csv.gz" else _containers()["csv.gz"]
    (folder / METADATA).write_bytes(table)
    (folder / ARCHIVE).write_bytes(_containers()["tgz"] if name == "csv.gz" else data)
    return read_studies(find_declaration("openi").open(folder))


@cache
def _intact(folder: Path) -> list[Study]:
    studies, rejects = _read(folder, "zip", _containers()["zip"])
    assert (len(studies), len(rejects)) == (_REPORTS, 0)
    return studies


@cache
def _containers() -> dict[str, bytes]:
    rows = [f"CXR{number}_IM-1,DX,{'PA' if number % 2 else 'LL'}" for number in range(_REPORTS)]
    table = "\n".join((",".join(METADATA_COLUMNS), *rows, "")).encode()
    return {"tgz": _tarred(), "zip": _zipped(), "csv.gz": gzip.compress(table, mtime=0)}


def _reports() -> dict[str, bytes]:
    return {
        f"ecgen-radiology/{number}.xml": f"""<eCitation>
<AbstractText Label="FINDINGS">{"Heart size is normal. " * number}</AbstractText>
<AbstractText Label="IMPRESSION">Report {number}.</AbstractText>
<parentImage id="CXR{number}_1_IM-1"/></eCitation>""".encode()
        for number in range(_REPORTS)
    }


def _tarred() -> bytes:
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w") as tar:
        for name, text in _reports().items():
            info = tarfile.TarInfo(name)
            info.size = len(text)
            tar.addfile(info, io.BytesIO(text))
    return gzip.compress(buffer.getvalue(), mtime=0)


def _zipped() -> bytes:
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, text in _reports().items():
            archive.writestr(zipfile.ZipInfo(name), text, zipfile.ZIP_DEFLATED)
    return buffer.getvalue()


KIND = Kind("archives and gzip", inputs, outcome)
