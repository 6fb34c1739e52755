"""Small files that decode to much, read in a child process that counts its memory."""

import struct
import subprocess
import sys
import zlib
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from pydicom import dcmread
from pydicom.encaps import encapsulate
from pydicom.uid import DeflatedExplicitVRLittleEndian, RLELossless

from tests.storage.images.dicom_files import write_radiograph

ROOT = Path(__file__).parents[3]
GREY = np.arange(256, dtype=np.uint8).reshape(16, 16)
MAX_BYTES = 600 << 20  # the libraries take some 100 MB, a deflated file up to its limit of 256 MB

PROGRAM = """
import pathlib, re, sys
from storage.images.loading import load_radiograph, describe_image
from storage.images.types import ImageError
for path in map(pathlib.Path, sys.argv[1:]):
    for use in (load_radiograph, describe_image):
        try:
            print(path.name, use(path) and "read")
        except ImageError as error:
            print(path.name, error.reason)
status = pathlib.Path("/proc/self/status").read_text()
print("peak", re.search("VmHWM: *\\s*(\\d+) kB", status)[1])
"""


def png(path, side=16, rows=GREY, *chunks):
    def chunk(kind, data):
        return (
            struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))
        )

    data = zlib.compress(b"".join(b"\0" + bytes(row) for row in rows))
    header = struct.pack(">IIBBBBB", side, side, 8, 0, 0, 0, 0)
    pieces = [(b"IHDR", header), *chunks, (b"IDAT", data), (b"IEND", b"")]
    path.write_bytes(b"\x89PNG\r\n\x1a\n" + b"".join(chunk(*piece) for piece in pieces))


def png_of_many_pixels(path):
    side = 13_000
    png(path, side, (bytes(side) for _ in range(side)))


def png_with_endless_text(path):
    bomb = zlib.compress(bytes(200_000_000))
    png(path, 16, GREY, (b"zTXt", b"name\0\0" + bomb), (b"iCCP", b"name\0\0" + bomb))


def jpeg_of_many_pixels(path):
    Image.fromarray(GREY).save(path, format="JPEG")
    path.write_bytes(path.read_bytes().replace(b"\0\x10\0\x10\x01", b"\xff\xff\xff\xff\x01", 1))


def rle_of_many_pixels(path):
    side = 20_000
    write_radiograph(path, GREY)
    dataset = dcmread(path)
    dataset.Rows = dataset.Columns = side
    row = bytes([129, 0]) * -(-side // 128)
    dataset.PixelData = encapsulate([struct.pack("<16I", 1, 64, *[0] * 14) + row * side])
    dataset["PixelData"].is_undefined_length = True
    dataset.file_meta.TransferSyntaxUID = RLELossless
    dataset.save_as(path)


def deflated_without_end(path):
    write_radiograph(path, GREY)
    dataset = dcmread(path)
    dataset.file_meta.TransferSyntaxUID = DeflatedExplicitVRLittleEndian
    dataset.save_as(path)
    data = path.read_bytes()
    deflater = zlib.compressobj(wbits=-zlib.MAX_WBITS)
    element = struct.pack("<HH2sHI", 0x0009, 0x0010, b"OB", 0, 1 << 30)
    pieces = [deflater.compress(element), *(deflater.compress(bytes(1 << 24)) for _ in range(20))]
    meta_end = 144 + struct.unpack_from("<I", data, 140)[0]
    path.write_bytes(data[:meta_end] + b"".join(pieces) + deflater.flush())


BOMBS = {
    png_of_many_pixels: {"too_large"},
    jpeg_of_many_pixels: {"too_large"},
    rle_of_many_pixels: {"too_large"},
    deflated_without_end: {"too_large"},
    png_with_endless_text: {"image_unreadable"},
}


@pytest.mark.skipif(sys.platform != "linux", reason="reads the peak from /proc")
def test_memory_is_bounded(tmp_path):
    paths = [tmp_path / write.__name__ for write in BOMBS]
    for write, path in zip(BOMBS, paths, strict=True):
        write(path)
        assert path.stat().st_size < 15_000_000
    command = [sys.executable, "-c", PROGRAM, *map(str, paths)]
    run = subprocess.run(command, capture_output=True, text=True, check=True, cwd=ROOT)
    *lines, (_, peak_kb) = (line.split() for line in run.stdout.splitlines())
    found = {
        write.__name__: {reason for name, reason in lines if name == write.__name__}
        for write in BOMBS
    }
    assert found == {write.__name__: reasons for write, reasons in BOMBS.items()}
    assert int(peak_kb) << 10 < MAX_BYTES
