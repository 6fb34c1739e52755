"""Predictions as files: JSON for programs, masks on the image's own grid, a picture for people."""

from __future__ import annotations

import re
from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Literal

import nibabel as nib
import numpy as np
from numpy.typing import NDArray
from PIL import Image
from pydantic import BaseModel, Field

from model.data.images import FileGrid
from model.inference.overlays import draw
from model.inference.predict import Prediction
from model.inference.prompts import Task
from model.inference.regions import Instance, Region
from storage.masks import decode_mask
from taxonomy.reading import Category


class BoxRecord(BaseModel):
    """A box in the coordinates of the image's file, half-open: pixel or voxel i is [i, i + 1)."""

    box: Annotated[
        list[float],
        Field(
            description="pixels: x_min, y_min, x_max, y_max of the upright image;"
            " voxels: lowest i, j, k, then highest, along the axes of the file"
        ),
    ]
    frame: Literal["pixels", "voxels"]
    corners_ras_mm: Annotated[
        list[list[float]] | None, Field(description="the eight corners of a box of voxels")
    ] = None
    score: Annotated[float, Field(description="probability that it stands for an instance")]


class MaskRecord(BaseModel):
    """A mask on the grid of the image's file."""

    file: Annotated[
        str | None, Field(description="beside the JSON: PNG of a radiograph, NIfTI of a volume")
    ]
    voxel_count: int
    volume_mm3: Annotated[float | None, Field(description="none for a radiograph")]


class TagRecord(BaseModel):
    """A phrase of the text and what it points at; `text[start:end]` in code points."""

    start: int
    end: int
    phrase: str
    target: Annotated[str | None, Field(description="its name in the taxonomy")]
    category: Category | None
    boxes: Annotated[
        list[BoxRecord] | None, Field(description="none if it is not grounded by boxes")
    ]
    mask: Annotated[MaskRecord | None, Field(description="none if it is not grounded by a mask")]


class PredictionRecord(BaseModel):
    """What a model says of an image."""

    image: str
    model: str
    task: Task
    query: str
    text: str
    complete: Annotated[
        bool, Field(description="false: it stops at the limit on new tokens, before its end")
    ]
    tags: list[TagRecord]
    notice: str = "research use, not for clinical decisions"


def record(
    prediction: Prediction, model: str, mask_files: Mapping[int, str] | None = None
) -> PredictionRecord:
    """Describe a prediction.

    Args:
        prediction: the prediction.
        model: what made it.
        mask_files: names of files of masks, by the number of the region.
    """
    grid, files = prediction.source.grid, mask_files or {}
    return PredictionRecord(
        image=str(prediction.path),
        model=model,
        task=prediction.question.task,
        query=prediction.question.query,
        text=prediction.text,
        complete=prediction.complete,
        tags=[_tag(region, grid, files.get(i)) for i, region in enumerate(prediction.regions)],
    )


def write(prediction: Prediction, folder: Path, model: str) -> PredictionRecord:
    """Write `prediction.json`, `overlay.png` and a file for each mask.

    One file a mask, since masks may overlap; an empty mask gets none. The JSON goes first and comes
    last: where it is, all that it names is.

    Args:
        prediction: the prediction.
        folder: it is made; what an earlier prediction left in it is replaced.
        model: what made it.

    Raises:
        OSError: if the folder cannot be written to.
    """
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "prediction.json").unlink(missing_ok=True)
    for earlier in folder.glob("mask-[0-9][0-9]*"):
        earlier.unlink()
    files = {}
    for number, region in enumerate(prediction.regions):
        if region.mask is not None and region.mask.voxel_count:
            mask = decode_mask(region.mask.encoded)
            files[number] = _write_mask(mask, prediction.source.grid, folder, number, region)
    draw(prediction.source, prediction.regions).save(folder / "overlay.png")
    described = record(prediction, model, files)
    text = described.model_dump_json(indent=1)
    (folder / "prediction.json").write_text(text + "\n", encoding="utf-8")
    return described


def _write_mask(
    mask: NDArray[np.bool_], grid: FileGrid, folder: Path, number: int, region: Region
) -> str:
    words = re.sub(r"[^a-z0-9]+", "-", region.phrase.lower()).strip("-")[:40]
    stem = f"mask-{number + 1:02d}-{words}".rstrip("-")
    if grid.affine is None:
        name = f"{stem}.png"
        Image.fromarray(mask[0].astype(np.uint8) * 255).save(folder / name)
        return name
    name = f"{stem}.nii.gz"
    image = nib.Nifti1Image(mask.astype(np.uint8), grid.affine)
    image.header.set_xyzt_units("mm")
    image.to_filename(folder / name)
    return name


def _tag(region: Region, grid: FileGrid, mask_file: str | None) -> TagRecord:
    boxes, mask = None, None
    if region.instances is not None:
        boxes = [_box(instance, grid) for instance in region.instances]
    if region.mask is not None:
        count, voxel_mm3 = region.mask.voxel_count, grid.voxel_mm3
        volume_mm3 = None if voxel_mm3 is None else round(count * voxel_mm3, 1)
        mask = MaskRecord(file=mask_file, voxel_count=count, volume_mm3=volume_mm3)
    return TagRecord(
        start=region.start,
        end=region.end,
        phrase=region.phrase,
        target=region.target,
        category=region.category,
        boxes=boxes,
        mask=mask,
    )


def _box(instance: Instance, grid: FileGrid) -> BoxRecord:
    score, corners = round(instance.score, 4), instance.corners
    if grid.affine is None:
        # (slice, row, column) to x, y
        edges = corners[:, :0:-1].round(2).flatten().tolist()
        return BoxRecord(box=edges, frame="pixels", score=score)
    return BoxRecord(
        box=corners.round(2).flatten().tolist(),
        frame="voxels",
        corners_ras_mm=grid.corners_ras_mm(corners).round(2).tolist(),
        score=score,
    )
