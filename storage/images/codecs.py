"""Compressed pixels of DICOM files, decoded in child processes.

The decoders are C, C++ and Rust, and damaged streams break them: GDCM aborts its process on some
JPEG-LS, CharLS takes minutes over others. A child process that dies, or takes too long, costs one
image; its address space is limited.
"""

from __future__ import annotations

import json
import struct
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path
from textwrap import shorten
from threading import Timer
from time import monotonic
from typing import IO, Any, NamedTuple

import numpy as np
from numpy.typing import NDArray
from pydicom.uid import (
    HTJ2K,
    JPEG2000,
    UID,
    HTJ2KLossless,
    HTJ2KLosslessRPCL,
    JPEG2000Lossless,
    JPEGBaseline8Bit,
    JPEGExtended12Bit,
    JPEGLossless,
    JPEGLosslessSV1,
    JPEGLSLossless,
    JPEGLSNearLossless,
    RLELossless,
)

from storage.images.limits import image_limits
from storage.images.types import ImageError

_PLUGINS = {
    JPEGBaseline8Bit: "pillow",
    JPEGExtended12Bit: "pillow",
    JPEGLossless: "gdcm",
    JPEGLosslessSV1: "gdcm",
    JPEGLSLossless: "gdcm",
    JPEGLSNearLossless: "gdcm",
    JPEG2000Lossless: "pylibjpeg",
    JPEG2000: "pylibjpeg",
    HTJ2KLossless: "pylibjpeg",
    HTJ2KLosslessRPCL: "pylibjpeg",
    HTJ2K: "pylibjpeg",
    RLELossless: "pylibjpeg",
}
"""pydicom's name of the decoder, by transfer syntax. One each: pixels do not depend on what else is
installed."""

_WORKER = Path(__file__).with_name("codec_worker.py")
_WORKER_BYTES = 2 << 30  # of address space, of which the libraries reserve most
_WORKER_BYTES_PER_PIXEL = 32  # OpenJPEG, the hungriest, works on 32-bit numbers and copies them
_SECONDS, _SECONDS_PER_MILLION_PIXELS = 20.0, 1.0  # ten times what the slowest decoder takes

_START_OF_IMAGE = b"\xff\xd8"
_FRAME_HEADERS = frozenset({*range(0xC0, 0xD0), 0xF7} - {0xC4, 0xC8, 0xCC})
"""Second bytes of the markers SOF0 to SOF15 (ITU-T T.81, table B.1) and SOF55 (JPEG-LS, T.87)."""
_START_OF_CODESTREAM = b"\xff\x4f\xff\x51"
"""The markers SOC and SIZ, with which a JPEG 2000 codestream begins (T.800, A.5.1)."""
_MAX_TILES = 65_535  # T.800, A.4.2: their index has 16 bits


class StreamSize(NamedTuple):
    """What the header of a compressed image says of it."""

    rows: int
    columns: int
    samples: int


def decode(
    path: Path, syntax: UID, stream: bytes, described: StreamSize, options: Mapping[str, Any]
) -> NDArray[np.integer]:
    """Decode one compressed frame.

    Args:
        path: The file, for the sentence.
        syntax: An encapsulated transfer syntax.
        stream: The frame's bytes.
        described: What the DICOM header says of the frame.
        options: What pydicom's decoder is told of it.

    Raises:
        ImageError: `image_unsupported`, if there is no decoder; `image_unreadable`.
    """
    plugin = _plugin(path, syntax, options)
    _check_stream(path, syntax, stream, described)
    request = {"syntax": syntax, "plugin": plugin, "options": dict(options)}
    seconds = _SECONDS + _SECONDS_PER_MILLION_PIXELS * described.rows * described.columns / 1e6
    try:
        return _Worker.ask_any(request, stream, seconds)
    except _DecodingError as error:
        raise ImageError(
            "image_unreadable",
            f"{path} cannot be decoded as {syntax.name}, it may be damaged or cut short: {error}",
        ) from error


class _DecodingError(Exception):
    """Why a frame could not be decoded."""


class _Worker:
    """A child process that runs `codec_worker.py`. It ends when its standard input is closed."""

    _idle: list[_Worker] = []  # noqa: RUF012 shared on purpose: as many as threads decode at once

    def __init__(self) -> None:
        max_bytes = _WORKER_BYTES + _WORKER_BYTES_PER_PIXEL * image_limits().max_pixels
        self._process = subprocess.Popen(
            [sys.executable, "-P", str(_WORKER), str(max_bytes)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
        )

    @classmethod
    def ask_any(
        cls, request: Mapping[str, Any], frame: bytes, seconds: float
    ) -> NDArray[np.integer]:
        """Let an idle worker decode, or a new one if there is none."""
        try:
            worker = cls._idle.pop()
        except IndexError:
            worker = cls()
        try:
            about, data = worker._ask(request, frame, seconds)
        except BaseException:
            worker._end()
            raise
        cls._idle.append(worker)
        if "error" in about:
            raise _DecodingError(shorten(about["error"], width=200, placeholder=" …"))
        pixels: NDArray[np.integer] = np.frombuffer(data, about["dtype"]).reshape(about["shape"])
        return pixels

    def _ask(
        self, request: Mapping[str, Any], frame: bytes, seconds: float
    ) -> tuple[dict[str, Any], bytearray]:
        started = monotonic()
        timer = Timer(seconds, self._process.kill)
        timer.start()
        try:
            requests, answers = _pipe(self._process.stdin), _pipe(self._process.stdout)
            requests.write(json.dumps({**request, "bytes": len(frame)}).encode() + b"\n")
            requests.write(frame)
            requests.flush()
            about = json.loads(answers.readline())
            data = bytearray(about["bytes"])
            if answers.readinto(data) != len(data):  # type: ignore[attr-defined]
                raise EOFError
        except (OSError, EOFError, ValueError) as error:
            took_too_long = monotonic() - started >= seconds
            raise _DecodingError(
                f"the decoder took more than {seconds:.0f} s" if took_too_long else "it crashed"
            ) from error
        finally:
            timer.cancel()
        return about, data

    def _end(self) -> None:
        self._process.kill()
        self._process.communicate()


def _pipe(stream: IO[bytes] | None) -> IO[bytes]:
    assert stream is not None  # noqa: S101 opened with PIPE
    return stream


def _plugin(path: Path, syntax: UID, options: Mapping[str, Any]) -> str:
    name = _PLUGINS.get(syntax)
    if name is None or (syntax == JPEGExtended12Bit and options["bits_stored"] > 8):
        depth = f" with {options['bits_stored']} bits" if name else ""
        raise ImageError(
            "image_unsupported",
            f"{path} is compressed as {syntax.name}{depth}, which is not supported",
        )
    return name


def _check_stream(path: Path, syntax: UID, stream: bytes, described: StreamSize) -> None:
    """Refuse a compressed image that is not of the size that the DICOM header gives it.

    A decoder allocates what the stream says, whatever the DICOM header says.

    Raises:
        ImageError: `image_unreadable`.
    """
    if syntax == RLELossless:
        return  # PS3.5, annex G: its size is the DICOM header's
    found = _jpeg_2000_size(stream) if _PLUGINS[syntax] == "pylibjpeg" else _jpeg_size(stream)
    if found != described:
        said = f"{found.rows} × {found.columns} × {found.samples}" if found else "no image"
        raise ImageError(
            "image_unreadable",
            f"{path} is damaged: its compressed pixels are {said}, its header says "
            f"{described.rows} × {described.columns} × {described.samples}",
        )


def _jpeg_size(stream: bytes) -> StreamSize | None:
    """Of a JPEG or JPEG-LS stream; None if no frame header is found."""
    if not stream.startswith(_START_OF_IMAGE):
        return None
    at = len(_START_OF_IMAGE)
    while at + 10 <= len(stream) and stream[at] == 0xFF:
        if stream[at + 1] == 0xFF:  # a fill byte
            at += 1
        elif stream[at + 1] in _FRAME_HEADERS:
            return StreamSize(*struct.unpack_from(">HHB", stream, at + 5))
        else:
            at += 2 + int.from_bytes(stream[at + 2 : at + 4], "big")
    return None


def _jpeg_2000_size(stream: bytes) -> StreamSize | None:
    """Of a codestream, bare or in a JP2 file; None if it has none, or absurdly many tiles."""
    at = stream.find(_START_OF_CODESTREAM)
    if at < 0 or len(stream) < at + 42:
        return None
    right, bottom, left, top, width, height = struct.unpack_from(">6I", stream, at + 8)
    (samples,) = struct.unpack_from(">H", stream, at + 40)
    rows, columns = bottom - top, right - left
    if not width or not height or -(-right // width) * -(-bottom // height) > _MAX_TILES:
        return None
    return StreamSize(rows, columns, samples)
