"""Size and speed of codecs for 3D masks, on real masks.

    python -m benchmarks.mask_codec

prints bytes per mask and mean milliseconds to encode and decode, per set of masks, on one core.
The store uses `storage.masks`; the other codecs are its alternatives. Every codec must restore
every mask exactly. The COCO rows need `pycocotools`, and are skipped without it.
"""

from __future__ import annotations

import pickle
import platform
import sys
import tempfile
import time
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import Any, NamedTuple

import nibabel as nib
import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from benchmarks.targets import judge
from storage.datasets import chest_ct
from storage.images.volume_files import read_label_ids
from storage.inputs import input_path
from storage.masks import decode_mask, encode_mask, mask_box

try:
    from pycocotools import mask as coco  # type: ignore[import-untyped,unused-ignore]
except ImportError:
    coco = None

Voxels = NDArray[np.bool_]

CHEST_CT = "chest CT, 89 structures, 512×512×133"
IN_USE = ("NIfTI.gz", "pickled bools, zstd 3", "COCO RLE per slice")
"""Codecs in use in other projects; the others are variants of `storage.masks`."""


class Codec(NamedTuple):
    """A way to store a mask; `size` returns the bytes of an encoded mask."""

    name: str
    encode: Callable[[Voxels], Any]
    decode: Callable[[Any], Voxels]
    size: Callable[[Any], int] = len


def zstd(data: bytes, level: int) -> tuple[bytes, int]:
    """Compressed bytes, with the uncompressed length, which pyarrow needs to decompress them."""
    return pa.Codec("zstd", compression_level=level).compress(data, asbytes=True), len(data)


def unzstd(compressed: tuple[bytes, int]) -> bytes:
    """Undo `zstd`."""
    data: bytes = pa.Codec("zstd").decompress(compressed[0], compressed[1], asbytes=True)
    return data


def first_size(encoded: tuple[Any, ...]) -> int:
    """Bytes of the compressed part of a tuple made by `zstd`."""
    return len(encoded[0])


def encode_packed(mask: Voxels) -> tuple[bytes, int, tuple[int, ...]]:
    """The voxels packed to bits."""
    return (*zstd(np.packbits(mask).tobytes(), 9), mask.shape)


def decode_packed(encoded: tuple[bytes, int, tuple[int, ...]]) -> Voxels:
    """Undo `encode_packed`."""
    bits = np.frombuffer(unzstd(encoded[:2]), np.uint8)
    shape = encoded[2]
    return np.unpackbits(bits, count=int(np.prod(shape))).view(np.bool_).reshape(shape)


def encode_slice_xor(mask: Voxels) -> tuple[bytes, int, tuple[int, ...]]:
    """The XOR of neighboring sagittal slices, packed to bits."""
    # Neighboring slices are similar: the XOR is mostly 0, which compresses well.
    changes = mask.copy()
    changes[1:] ^= mask[:-1]
    return encode_packed(changes)


def decode_slice_xor(encoded: tuple[bytes, int, tuple[int, ...]]) -> Voxels:
    """Undo `encode_slice_xor`."""
    return np.logical_xor.accumulate(decode_packed(encoded), axis=0)


def encode_runs(mask: Voxels) -> tuple[bytes, int, tuple[int, ...]]:
    """Run lengths, background first, in the axis order with the smallest result (y, z, x).

    As uint32 with separate byte planes, which zstd compresses better than varints.
    """
    turned = mask.transpose(1, 2, 0)
    ends = np.flatnonzero(np.diff(turned.ravel(), prepend=False))
    runs = np.diff(ends, prepend=0, append=mask.size).astype("<u4")
    planes = runs.view(np.uint8).reshape(-1, 4).T
    return (*zstd(planes.tobytes(), 9), turned.shape)


def decode_runs(encoded: tuple[bytes, int, tuple[int, ...]]) -> Voxels:
    """Undo `encode_runs`."""
    planes = np.frombuffer(unzstd(encoded[:2]), np.uint8).reshape(4, -1)
    runs = np.ascontiguousarray(planes.T).view("<u4").ravel()
    flat = np.repeat(np.arange(len(runs)) % 2 == 1, runs)
    return flat.reshape(encoded[2]).transpose(2, 0, 1)


def cropped(name: str, encode: Callable[[Voxels], Any], decode: Callable[[Any], Voxels]) -> Codec:
    """A codec that stores only the bounding box of the mask, as `storage.masks` does."""

    def encode_box(mask: Voxels) -> tuple[Any, tuple[slice, ...], tuple[int, ...]]:
        box = mask_box(mask)
        return encode(np.ascontiguousarray(mask[box])), box, mask.shape

    def decode_box(encoded: tuple[Any, tuple[slice, ...], tuple[int, ...]]) -> Voxels:
        inside, box, shape = encoded
        mask = np.zeros(shape, np.bool_)
        mask[box] = decode(inside)
        return mask

    return Codec(name, encode_box, decode_box, lambda encoded: first_size(encoded[0]))


def encode_nifti(mask: Voxels) -> bytes:
    """The bytes of a .nii.gz file, at nibabel's own compression level."""
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "mask.nii.gz"
        nib.save(nib.Nifti1Image(mask.view(np.uint8), np.eye(4)), path)
        return path.read_bytes()


def decode_nifti(encoded: bytes) -> Voxels:
    """Read the bytes of a .nii.gz file."""
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "mask.nii.gz"
        path.write_bytes(encoded)
        image: Any = nib.load(path)
        return np.ascontiguousarray(image.dataobj).view(np.bool_)


def encode_coco(mask: Voxels) -> list[dict[str, Any]]:
    """COCO's compressed run lengths, one axial slice at a time."""
    encoded: list[dict[str, Any]] = coco.encode(np.asfortranarray(mask.view(np.uint8)))
    return encoded


def decode_coco(encoded: list[dict[str, Any]]) -> Voxels:
    """Undo `encode_coco`."""
    return np.ascontiguousarray(coco.decode(encoded)).view(np.bool_)


def coco_size(encoded: list[dict[str, Any]]) -> int:
    """Bytes of the run lengths of all slices."""
    return sum(len(piece["counts"]) for piece in encoded)


CODECS = [
    Codec("storage.masks", encode_mask, decode_mask),
    Codec("no crop, packed, zstd 9", encode_packed, decode_packed, first_size),
    cropped("crop, slice XOR, packed, zstd 9", encode_slice_xor, decode_slice_xor),
    cropped("crop, run lengths, zstd 9", encode_runs, decode_runs),
    Codec(
        "pickled bools, zstd 3",
        lambda mask: zstd(pickle.dumps(mask), 3),
        lambda encoded: pickle.loads(unzstd(encoded)),  # noqa: S301  pickled in the line above
        first_size,
    ),
    Codec("NIfTI.gz", encode_nifti, decode_nifti),
    Codec("COCO RLE per slice", encode_coco, decode_coco, coco_size),
]


def chest_structures() -> Iterator[Voxels]:
    """The 89 structures of the full-size chest CT."""
    labels = chest_ct.load_labels()
    return (labels.mask(name) for name in labels.names)


def single_structures() -> Iterator[Voxels]:
    """Structures that come as files of their own."""
    names = ("thorax_aorta", "thorax_vertebrae_T12", "heart_heart", "heart_pulmonary_artery")
    return (read_label_ids(input_path(f"totalsegmentator/{name}.nii.gz"))[0] > 0 for name in names)


def thresholds() -> Iterator[Voxels]:
    """Noisy masks: air and bone of the chest CT by threshold alone, speckles and all."""
    hu = chest_ct.load_ct().hu
    return iter([(hu > -1000) & (hu < -400), hu > 200])


def figures(of_chest: dict[str, tuple[float, float, float]]) -> dict[str, float]:
    """Size and time of the codec of the store, relative to other codecs in use."""
    ours, nifti = of_chest["storage.masks"], of_chest["NIfTI.gz"]
    smallest = min(of_chest[name][0] for name in IN_USE if name in of_chest)
    return {
        "bytes of the smallest other way in use, chest CT": ours[0] / smallest,
        "bytes of NIfTI.gz, chest CT": ours[0] / nifti[0],
        "time of NIfTI.gz, chest CT": sum(ours[1:]) / sum(nifti[1:]),
    }


def measure(codec: Codec, masks: Iterable[Voxels]) -> tuple[float, float, float]:
    """Mean bytes, and mean milliseconds to encode and decode."""
    rows = []
    for mask in masks:
        start = time.perf_counter()
        encoded = codec.encode(mask)
        middle = time.perf_counter()
        decoded = codec.decode(encoded)
        end = time.perf_counter()
        # A codec that loses a voxel is not a candidate, however small.
        assert np.array_equal(decoded, mask), codec.name
        rows.append((codec.size(encoded), (middle - start) * 1e3, (end - middle) * 1e3))
    size, encode_ms, decode_ms = np.mean(rows, axis=0)
    return float(size), float(encode_ms), float(decode_ms)


def main() -> int:
    """Print the table; 1 if a target is missed."""
    print(f"Python {platform.python_version()}, pyarrow {pa.__version__}, numpy {np.__version__}")
    sets = {
        CHEST_CT: chest_structures,
        "4 single structures, 1.5 mm": single_structures,
        "air and bone by threshold, 512×512×133": thresholds,
    }
    measured: dict[str, dict[str, tuple[float, float, float]]] = {}
    for title, masks in sets.items():
        measured[title] = {}
        print(f"\n{title:40}{'bytes':>12}{'encode ms':>12}{'decode ms':>12}")
        for codec in CODECS:
            if coco is None and codec.encode is encode_coco:
                print(f"  {codec.name:38} skipped: pycocotools is not installed")
                continue
            size, encode_ms, decode_ms = measured[title][codec.name] = measure(codec, masks())
            print(f"  {codec.name:38}{size:12,.0f}{encode_ms:12.1f}{decode_ms:12.1f}")
    return judge("mask_codec", figures(measured[CHEST_CT]))


if __name__ == "__main__":
    sys.exit(main())
