"""Boolean masks as bytes, for binary cells of Parquet tables.

The mask is cropped to the box of its set voxels, packed to bits along its last axis and
compressed with zstd. `benchmarks/mask_codec.py` measures this against the alternatives. Only run
lengths come out smaller, by a fifth on smooth masks (1.5 against 1.9 kB); on noisy ones they take
nearly three times as long to decode, and decoding is what training does all day.

Layout, little-endian:

    4 bytes   VMMK
    uint8     version, 1
    uint32    CRC-32 of all that follows
    uint8     number of axes, n
    uint32    n sizes, n first indices of the box, n sizes of the box
    bytes     zstd of the box in C order, every last-axis row padded to whole bytes, first voxel
              in the highest bit
"""

from __future__ import annotations

import struct
import zlib
from collections.abc import Sequence
from math import prod

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

_HEAD = struct.Struct("<4sBI")
_MAGIC, _VERSION = b"VMMK", 1
_ZSTD = pa.Codec("zstd", compression_level=9)
_MAX_AXES = 8  # far more than any image has; an array takes 64
_MAX_VOXELS = 1 << 32  # 4 GB decoded: four times the largest volume that is read


class MaskError(ValueError):
    """Bytes that are not a whole encoded mask."""


def encode_mask(voxels: NDArray[np.bool_]) -> bytes:
    """Encode a mask of any shape and memory order; the same mask gives the same bytes."""
    return encode_part(voxels, (0,) * voxels.ndim, voxels.shape)


def encode_part(part: NDArray[np.bool_], start: Sequence[int], shape: Sequence[int]) -> bytes:
    """Encode a mask of which only a part, from the voxel `start` on, may have set voxels.

    The bytes are those of the whole mask of `shape`, whatever part is given.
    """
    axes = part.ndim
    box = mask_box(part)
    crop = part[box]
    starts = [at + extent.start if crop.size else 0 for at, extent in zip(start, box, strict=True)]
    packed = np.packbits(np.atleast_1d(crop), axis=-1)
    geometry = struct.pack(f"<B{3 * axes}I", axes, *shape, *starts, *crop.shape)
    body: bytes = geometry + _ZSTD.compress(packed.tobytes(), asbytes=True)
    return _HEAD.pack(_MAGIC, _VERSION, zlib.crc32(body)) + body


def decode_mask(data: bytes) -> NDArray[np.bool_]:
    """Give back the mask that was encoded, in C order.

    Raises:
        MaskError: if the bytes are cut, changed, no mask, or a mask whose sizes cannot be true.
    """
    body = _checked_body(data)
    shape, starts, extents = _geometry(body)
    row = extents[-1] if extents else 1
    packed_shape = (*extents[:-1], -(-row // 8))
    rows = np.frombuffer(_decompressed(body, len(shape), prod(packed_shape)), np.uint8)
    voxels = np.zeros(shape, np.bool_)
    box = tuple(slice(start, start + extent) for start, extent in zip(starts, extents, strict=True))
    unpacked = np.unpackbits(rows.reshape(packed_shape), axis=-1, count=row)
    voxels[box] = unpacked.reshape(extents)
    return voxels


def mask_box(voxels: NDArray[np.bool_ | np.integer]) -> tuple[slice, ...]:
    """The smallest box that holds all voxels that are not 0, half-open; empty if there are none."""
    box: list[slice] = []
    for axis in range(voxels.ndim):
        others = tuple(other for other in range(voxels.ndim) if other != axis)
        # Crop as the axes go by: later axes then read only what the earlier ones left.
        occupied = np.flatnonzero(voxels[tuple(box)].any(axis=others))
        box.append(slice(int(occupied[0]), int(occupied[-1]) + 1) if len(occupied) else slice(0, 0))
    return tuple(box)


def _checked_body(data: bytes) -> memoryview:
    if len(data) <= _HEAD.size or not data.startswith(_MAGIC):
        raise MaskError(f"these {len(data)} bytes are not an encoded mask, or were cut short")
    _, version, checksum = _HEAD.unpack_from(data)
    if version != _VERSION:
        raise MaskError(
            f"this mask is encoded in version {version}; this program reads version {_VERSION}: "
            "update it, or encode the mask again"
        )
    body = memoryview(data)[_HEAD.size :]
    if zlib.crc32(body) != checksum:
        raise MaskError("this encoded mask was cut short or changed: its checksum does not match")
    return body


def _geometry(body: memoryview) -> tuple[tuple[int, ...], tuple[int, ...], tuple[int, ...]]:
    """The sizes of the mask, and the first indices and the sizes of its box."""
    axes = body[0]
    if axes > _MAX_AXES or len(body) < 1 + 12 * axes:
        raise MaskError(f"this encoded mask says that it has {axes} axes, which it cannot hold")
    numbers = struct.unpack_from(f"<{3 * axes}I", body, offset=1)
    shape, starts, extents = numbers[:axes], numbers[axes : 2 * axes], numbers[2 * axes :]
    if prod(max(size, 1) for size in shape) > _MAX_VOXELS:
        said = " × ".join(map(str, shape))
        raise MaskError(f"this encoded mask says that it has {said} voxels: no image has so many")
    ends = [start + extent for start, extent in zip(starts, extents, strict=True)]
    if any(end > size for end, size in zip(ends, shape, strict=True)):
        raise MaskError("this encoded mask says that its voxels lie outside of it")
    return shape, starts, extents


def _decompressed(body: memoryview, axes: int, size: int) -> bytes:
    packed = body[1 + 12 * axes :]
    # zstd gives no more than the size asked for, whatever the frame says.
    try:
        rows: bytes = _ZSTD.decompress(packed, decompressed_size=size, asbytes=True)
    except (OSError, ValueError) as error:
        raise MaskError("this encoded mask does not hold as many voxels as it says") from error
    return rows
