"""Enhanced CT: one file of many frames, its elements and bytes damaged."""

import tempfile
from functools import cache
from pathlib import Path

from hypothesis.strategies import SearchStrategy

from tests.fuzz.edits import Damaged, edited, edits_of, several
from tests.fuzz.elements import element_edits
from tests.fuzz.images import read_volume
from tests.fuzz.trials import Kind
from tests.storage.images.test_enhanced_ct import write_enhanced

_NAME = "enhanced CT"


def inputs() -> SearchStrategy[Damaged]:
    """Damaged files."""
    data = _file()
    header = range(data.index(b"\x28\0\x02\0"), len(data))  # from the description of the pixels
    edits = several(edits_of(data, header)) | several(element_edits(data))
    return edits.map(lambda some: Damaged(_NAME, some))


def outcome(given: Damaged, folder: Path) -> None:
    """Load the volume."""
    path = folder / "ct.dcm"
    path.write_bytes(edited(_file(), given.edits))
    read_volume(path)


@cache
def _file() -> bytes:
    with tempfile.TemporaryDirectory() as folder:
        data: bytes = write_enhanced(Path(folder) / "ct.dcm").read_bytes()
        return data


KIND = Kind(_NAME, inputs, outcome)
