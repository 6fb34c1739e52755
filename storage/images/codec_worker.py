"""The child process of `storage.images.codecs`: decodes compressed DICOM frames, one after another.

Run by its path; it imports nothing of ours. Standard input carries requests, standard output
answers, each a line of JSON, then as many bytes as its `bytes` says.

    request  syntax (UID), plugin, options of pydicom's decoder, and the compressed frame
    answer   dtype, shape, and the pixels; or only `error`, a sentence
"""

from __future__ import annotations

import contextlib
import json
import os
import resource
import sys
import warnings
from typing import Any, BinaryIO

import numpy as np
from numpy.typing import NDArray
from pydicom.encaps import encapsulate
from pydicom.pixels.decoders.base import get_decoder
from pydicom.uid import UID


def main(max_bytes: int) -> None:
    """Answer until standard input ends; what decoders print is dropped."""
    with contextlib.suppress(ValueError, OSError):  # not every system limits address space
        resource.setrlimit(resource.RLIMIT_AS, (max_bytes, max_bytes))
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    warnings.simplefilter("ignore")
    answers = os.fdopen(os.dup(sys.stdout.fileno()), "wb")
    os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
    while line := sys.stdin.buffer.readline():
        request = json.loads(line)
        frame = sys.stdin.buffer.read(request["bytes"])
        try:
            pixels = _decoded(request, frame)
        except BaseException as error:  # noqa: BLE001 a panic of Rust is no Exception
            _send(answers, {"error": str(error) or type(error).__name__}, b"")
        else:
            about = {"dtype": pixels.dtype.str, "shape": pixels.shape}
            _send(answers, about, np.ascontiguousarray(pixels).data.cast("B"))


def _decoded(request: dict[str, Any], frame: bytes) -> NDArray[np.integer]:
    decoder = get_decoder(UID(request["syntax"]))
    pixels, _ = decoder.as_array(
        encapsulate([frame]), decoding_plugin=request["plugin"], **request["options"]
    )
    return pixels


def _send(stream: BinaryIO, about: dict[str, Any], data: bytes | memoryview) -> None:
    stream.write(json.dumps({**about, "bytes": len(data)}).encode() + b"\n")
    stream.write(data)
    stream.flush()


if __name__ == "__main__":
    main(int(sys.argv[1]))
