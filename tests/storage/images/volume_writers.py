"""Small volumes in files of each format, for tests."""

import gzip
import zlib
from pathlib import Path

import nibabel as nib
import numpy as np

LPS = np.diag([-1.0, -1.0, 1.0, 1.0])


def write_volume(path: Path, voxels: np.ndarray, affine: np.ndarray) -> Path:
    """Write a volume by the ending of its name; `affine` is voxel index to RAS mm."""
    path.parent.mkdir(parents=True, exist_ok=True)
    if path.name.endswith((".nii", ".nii.gz")):
        nib.Nifti1Image(voxels, affine).to_filename(path)
    elif path.name.endswith(".nrrd"):
        write_nrrd(path, voxels, affine)
    else:
        write_metaimage(path, voxels, affine)
    return path


def write_nrrd(path, voxels, affine, encoding="gzip", **fields):
    lps = LPS @ affine
    names = {"int16": "short", "uint8": "uchar", "uint16": "ushort", "float32": "float"}
    said = {
        "type": names[voxels.dtype.name],
        "dimension": voxels.ndim,
        "space": "left-posterior-superior",
        "sizes": " ".join(map(str, voxels.shape)),
        "space directions": " ".join(
            "(" + ",".join(map(repr, map(float, column))) + ")" for column in lps[:3, :3].T
        ),
        "endian": "little",
        "encoding": encoding,
        "space origin": "(" + ",".join(map(repr, map(float, lps[:3, 3]))) + ")",
    } | fields
    lines = [f"{name}: {value}" for name, value in said.items() if value is not None]
    data = voxels.tobytes(order="F")
    if encoding == "gzip":
        data = gzip.compress(data)
    header = "\n".join(["NRRD0004", "# Complete NRRD file", *lines, "Segment0_ID:=Segment_1"])
    path.write_bytes(header.encode() + b"\n\n" + data)


def write_metaimage(path, voxels, affine, compressed=True, **fields):
    lps = LPS @ affine
    spacing = np.linalg.norm(lps[:3, :3], axis=0)
    names = {"int16": "MET_SHORT", "uint8": "MET_UCHAR", "uint16": "MET_USHORT"}
    local = path.suffix == ".mha"
    data = voxels.tobytes(order="F")
    data = zlib.compress(data) if compressed else data
    said = {
        "ObjectType": "Image",
        "NDims": voxels.ndim,
        "BinaryData": "True",
        "BinaryDataByteOrderMSB": "False",
        "CompressedData": str(compressed),
        "CompressedDataSize": len(data),
        "TransformMatrix": " ".join(map(repr, (lps[:3, :3] / spacing).T.ravel().tolist())),
        "Offset": " ".join(map(repr, lps[:3, 3].tolist())),
        "ElementSpacing": " ".join(map(repr, spacing.tolist())),
        "DimSize": " ".join(map(str, voxels.shape)),
        "ElementType": names[voxels.dtype.name],
        "ElementDataFile": "LOCAL" if local else path.with_suffix(".raw").name,
    } | fields
    said["ElementDataFile"] = said.pop("ElementDataFile")  # always the last
    header = "".join(f"{name} = {value}\n" for name, value in said.items()).encode()
    path.write_bytes(header + (data if local else b""))
    if not local:
        path.with_suffix(".raw").write_bytes(data)
