"""Predictions as files: JSON, masks on the grid of the image's file, and a picture."""

from __future__ import annotations

import re
from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Literal

import nibabel as nib
import numpy as np
from PIL import Image
from pydantic import BaseModel, Field

from model.inference.overlays import draw
from model.inference.predict import Prediction
from model.inference.prompts import Task
from storage.images.file_grid import FileGrid
from storage.records import NOTICE, AnyBox, Category, Mask, Tag


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
    """A grounded phrase of the text; `text[start:end]` in code points."""

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
    """The answer of a model about an image."""

    image: str
    model: str
    task: Task
    query: str
    text: str
    complete: Annotated[
        bool, Field(description="false: it stops at the limit on new tokens, before its end")
    ]
    tags: list[TagRecord]
    notice: str = NOTICE


def record(
    prediction: Prediction, model: str, mask_files: Mapping[int, str] | None = None
) -> PredictionRecord:
    """Describe a prediction.

    Args:
        prediction: the prediction.
        model: name of the model.
        mask_files: names of the mask files, by the index of the tag.
    """
    grid, files = prediction.source.grid, mask_files or {}
    return PredictionRecord(
        image=str(prediction.path),
        model=model,
        task=prediction.question.task,
        query=prediction.question.query,
        text=prediction.text,
        complete=prediction.complete,
        tags=[_tag(tag, grid, files.get(i)) for i, tag in enumerate(prediction.tags)],
    )


def write(prediction: Prediction, folder: Path, model: str) -> PredictionRecord:
    """Write `prediction.json`, `overlay.png` and a file for each mask.

    One file for each mask, because masks may overlap; an empty mask has none. An earlier JSON is
    deleted first and the new one is written last: if it exists, so do all files that it names.

    Args:
        prediction: the prediction.
        folder: created if needed; an earlier prediction in it is replaced.
        model: name of the model.

    Raises:
        OSError: if the folder cannot be written to.
    """
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "prediction.json").unlink(missing_ok=True)
    for earlier in folder.glob("mask-[0-9][0-9]*"):
        earlier.unlink()
    files = {}
    for number, tag in enumerate(prediction.tags):
        mask = tag.grounding.mask
        if mask is not None and mask.voxel_count:
            stem = _file_stem(number, tag)
            files[number] = _write_mask(mask, prediction.source.grid, folder, stem)
    draw(prediction.source, prediction.tags).save(folder / "overlay.png")
    described = record(prediction, model, files)
    text = described.model_dump_json(indent=1)
    (folder / "prediction.json").write_text(text + "\n", encoding="utf-8")
    return described


def _file_stem(number: int, tag: Tag) -> str:
    words = re.sub(r"[^a-z0-9]+", "-", tag.phrase.lower()).strip("-")[:40]
    return f"mask-{number + 1:02d}-{words}".rstrip("-")


def _write_mask(mask: Mask, grid: FileGrid, folder: Path, stem: str) -> str:
    voxels = mask.voxels
    if grid.affine is None:
        name = f"{stem}.png"
        Image.fromarray(voxels[0].astype(np.uint8) * 255).save(folder / name)
        return name
    name = f"{stem}.nii.gz"
    image = nib.Nifti1Image(voxels.astype(np.uint8), grid.affine)
    image.header.set_xyzt_units("mm")
    image.to_filename(folder / name)
    return name


def _tag(tag: Tag, grid: FileGrid, mask_file: str | None) -> TagRecord:
    boxes, mask = None, None
    if tag.grounding.boxes is not None:
        boxes = [_box(box, grid) for box in tag.grounding.boxes]
    if (found := tag.grounding.mask) is not None:
        volume_mm3 = None if found.volume_mm3 is None else round(found.volume_mm3, 1)
        mask = MaskRecord(file=mask_file, voxel_count=found.voxel_count, volume_mm3=volume_mm3)
    return TagRecord(
        start=tag.start,
        end=tag.end,
        phrase=tag.phrase,
        target=tag.target,
        category=tag.category,
        boxes=boxes,
        mask=mask,
    )


def _box(box: AnyBox, grid: FileGrid) -> BoxRecord:
    score, corners = round(box.score, 4), box.corners
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
