"""Small trees of files in the layout of a data set, for the tests of its reader."""

from collections.abc import Iterable
from pathlib import Path

from PIL import Image

from storage.datasets.reader import Study
from storage.datasets.registry import find_declaration
from storage.rejects import Reject


def write(folder: Path, name: str, *lines: str) -> Path:
    """A text file of lines, below the folder."""
    path = folder / name
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("".join(f"{line}\n" for line in lines), encoding="utf-8")
    return path


def picture(folder: Path, name: str, size: tuple[int, int] = (100, 50), mode: str = "L") -> Path:
    """A picture of so many columns and rows."""
    path = folder / name
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.new(mode, size).save(path)
    return path


def read(name: str, folder: Path) -> tuple[dict[str, Study], list[Reject]]:
    """The studies of a packaged data set by `split/study_id`, and the records rejected."""
    reader = find_declaration(name).open(folder)
    records = list(reader.records())
    assert reader.fingerprint() == find_declaration(name).open(folder).fingerprint()
    results = list(reader.read(records))
    studies = {
        f"{record.split}/{result.study_id}": result
        for record, result in zip(records, results, strict=True)
        if isinstance(result, Study)
    }
    return studies, [result for result in results if isinstance(result, Reject)]


def reasons(rejects: Iterable[Reject]) -> list[str]:
    return [reject.reason for reject in rejects]
