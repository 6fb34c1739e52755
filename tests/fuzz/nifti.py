"""NIfTI volumes: fields of the header changed, bytes of plain and of gzipped files damaged."""

import gzip
from functools import cache
from pathlib import Path
from typing import Any, NamedTuple

import nibabel as nib
import numpy as np
from hypothesis import strategies as st
from hypothesis.strategies import SearchStrategy

from tests.fuzz.edits import NO_NUMBERS, ODD_NUMBERS, Damaged, damaged, edited
from tests.fuzz.images import read_volume
from tests.fuzz.trials import Kind

_FIELDS = nib.Nifti1Header().structarr.dtype
_HEADER = range(352)  # with four of flags for extensions
_NUMBERS = [
    (name, index)
    for name in _FIELDS.names
    if _FIELDS[name].base.kind in "iuf"
    for index in range(max(1, int(np.prod(_FIELDS[name].shape))))
]


class ChangedFields(NamedTuple):
    """An original and numbers of its header: field, index in it, value."""

    original: str
    fields: tuple[tuple[tuple[str, int], float], ...]


def inputs() -> SearchStrategy[Any]:
    """Damaged files."""
    values = st.sampled_from((*ODD_NUMBERS, *NO_NUMBERS))
    fields = st.lists(st.tuples(st.sampled_from(_NUMBERS), values), min_size=1, max_size=3)
    changed = st.builds(ChangedFields, st.sampled_from(sorted(_plain())), fields.map(tuple))
    files = _plain() | {f"{name}.gz": gzip.compress(_plain()[name], mtime=0) for name in _plain()}
    return changed | damaged(files, _HEADER)


def outcome(given: ChangedFields | Damaged, folder: Path) -> None:
    """Load the volume; gzip's checksum lets no other one pass."""
    is_gzipped = given.original.endswith(".gz")
    plain = _plain()[given.original.removesuffix(".gz")]
    path = folder / "volume.nii.gz"
    if isinstance(given, ChangedFields):
        path.write_bytes(gzip.compress(_changed(plain, given), 1))
    else:
        original = gzip.compress(plain, mtime=0) if is_gzipped else plain
        path.write_bytes(edited(original, given.edits))
    volume = read_volume(path)
    if is_gzipped:
        path.write_bytes(plain)
        intact = read_volume(path)
        assert np.array_equal(volume.hu, intact.hu), "it has other voxels"
        assert np.array_equal(volume.affine, intact.affine), "it lies elsewhere"


@cache
def _plain() -> dict[str, bytes]:
    """Small volumes on an oblique and on a flipped grid, of the number types of real files."""
    hu = np.random.default_rng(0).integers(-1000, 1500, (9, 8, 7))
    oblique = [[0.8, 0, 0, -90], [0, 0.8, 0.3, -120], [0, -0.2, 2.5, 30], [0, 0, 0, 1]]
    flipped = np.diag([-0.7, -0.7, 1.5, 1])
    return {
        "int16": _file(hu.astype(np.int16), flipped),
        "float32": _file(hu.astype(np.float32), np.array(oblique)),
        "int16 of NIfTI-2": _file(hu.astype(np.int16), flipped, nib.Nifti2Image),
    }


def _file(
    voxels: np.ndarray, affine: np.ndarray, image_class: type[Any] = nib.Nifti1Image
) -> bytes:
    image = image_class(voxels, affine)
    image.set_qform(affine, code=1, strip_shears=True)
    image.set_sform(affine, code=1)
    image.header.set_xyzt_units("mm")
    data: bytes = image.to_bytes()
    return data


def _changed(data: bytes, given: ChangedFields) -> bytes:
    is_second = int.from_bytes(data[:4], "little") == nib.Nifti2Header.sizeof_hdr
    header = (nib.Nifti2Header if is_second else nib.Nifti1Header)(
        data[: (nib.Nifti2Header if is_second else nib.Nifti1Header).sizeof_hdr], check=False
    )
    for (name, index), value in given.fields:
        if name in header.structarr.dtype.names:
            with np.errstate(invalid="ignore", over="ignore"):
                header.structarr[name].reshape(-1)[index] = np.float64(value).astype(
                    header.structarr[name].dtype
                )
    changed: bytes = header.binaryblock + data[len(header.binaryblock) :]
    return changed


KIND = Kind("NIfTI volumes", inputs, outcome)
