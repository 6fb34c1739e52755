"""Folders of DICOM series: slices left out, doubled and damaged, odd files put beside them."""

import shutil
import tempfile
from functools import cache
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from hypothesis import strategies as st
from hypothesis.strategies import SearchStrategy

from storage.images.types import ImageError, Volume
from tests.fuzz.edits import Edit, edited, edits_of, several
from tests.fuzz.elements import element_edits
from tests.fuzz.images import read_volume
from tests.fuzz.trials import Kind
from tests.storage.images.dicom_files import decimals, write_ct_slice, write_radiograph

_SLICES = 8
_HEADER = range(700)


class DamagedSeries(NamedTuple):
    """What is done to a series.

    left_out, doubled: indices of slices.
    damage: a slice and its edits.
    beside: names of files that are put beside the slices.
    """

    left_out: frozenset[int]
    doubled: frozenset[int]
    damage: tuple[int, tuple[Edit, ...]] | None
    beside: frozenset[str]


_UNDAMAGED = DamagedSeries(frozenset(), frozenset(), None, frozenset())


def inputs() -> SearchStrategy[DamagedSeries]:
    """Damaged series."""
    indices = st.integers(0, _SLICES - 1)

    def damage(index: int) -> SearchStrategy[Any]:
        edit = edits_of(_slices()[index], _HEADER) | element_edits(_slices()[index])
        return st.tuples(st.just(index), several(edit))

    none: SearchStrategy[frozenset[Any]] = st.just(frozenset())
    few = none | st.frozensets(indices, max_size=2)
    beside = none | st.frozensets(st.sampled_from(sorted(_odd_files())), max_size=2)
    return st.builds(DamagedSeries, few, few, st.none() | indices.flatmap(damage), beside)


def outcome(given: DamagedSeries, folder: Path) -> None:
    """Load the series: the intact one, or what is left at one end, if no slice is damaged."""
    source = folder / "series"
    _write(given, source)
    try:
        volume = read_volume(source)
    except ImageError as error:
        is_whole = not given.left_out and given.damage is None
        assert not is_whole, f"what lies beside its slices costs the series: {error}"  # noqa: PT017
        raise
    if given.damage is None:
        kept = sorted(set(range(_SLICES)) - given.left_out)
        assert kept == list(range(kept[0], kept[-1] + 1)), "a slice is missing from within"
        intact = _intact()
        assert np.array_equal(volume.hu, intact.hu[:, :, kept]), "it has other voxels"
        assert np.allclose(volume.affine[:3, :3], intact.affine[:3, :3]), "it has another grid"


def _write(given: DamagedSeries, source: Path) -> None:
    shutil.rmtree(source, ignore_errors=True)
    source.mkdir()
    for index, data in enumerate(_slices()):
        damaged_index, edits = given.damage or (None, ())
        slice_ = edited(data, edits) if index == damaged_index else data
        if index not in given.left_out:
            (source / f"{index}.dcm").write_bytes(slice_)
            if index in given.doubled:
                (source / f"{index} copy.dcm").write_bytes(slice_)
    for name in given.beside:
        (source / name).write_bytes(_odd_files()[name])


@cache
def _intact() -> Volume:
    with tempfile.TemporaryDirectory() as folder:
        _write(_UNDAMAGED, Path(folder) / "series")
        return read_volume(Path(folder) / "series")


@cache
def _slices() -> tuple[bytes, ...]:
    values = np.random.default_rng(0).integers(-1000, 1500, (_SLICES, 6, 5)).astype(np.int16)
    with tempfile.TemporaryDirectory() as folder:
        return tuple(
            write_ct_slice(
                Path(folder) / f"{index}",
                slice_,
                (-90, -120, 30 + 2.5 * index),
                InstanceNumber=index + 1,
                SliceThickness=2.5,
            ).read_bytes()
            for index, slice_ in enumerate(values)
        )


@cache
def _odd_files() -> dict[str, bytes]:
    """What archives and people put beside slices."""
    grey = np.full((6, 5), 7, np.int16)
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "odd"
        scout = write_ct_slice(
            path,
            grey,
            ImageType=["ORIGINAL", "PRIMARY", "LOCALIZER"],
            ImageOrientationPatient=decimals(1, 0, 0, 0, 0, -1),
        ).read_bytes()
        film = write_radiograph(path, grey).read_bytes()
        structures = write_ct_slice(
            path, grey, Modality="RTSTRUCT", Rows=None, Columns=None, PixelData=None
        ).read_bytes()
    return {
        "scout.dcm": scout,
        "film.dcm": film,
        "structures.dcm": structures,
        "notes.txt": b"Thorax\n",
        "DICOMDIR": b"",
        ".DS_Store": b"\0\0\0\1Bud1",
    }


KIND = Kind("DICOM series", inputs, outcome)
