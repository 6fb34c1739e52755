"""A tiny model that has memorized two images, and their files: made in seconds."""

from dataclasses import dataclass
from functools import cache
from pathlib import Path
from tempfile import TemporaryDirectory

import nibabel as nib
import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image

from model.config import VividMedConfig
from model.data.brackets import parse
from model.data.images import prepare, read_image
from model.data.inputs import PhraseTarget, Sample, pack
from model.data.processor import VividMedImageProcessor, VividMedProcessor
from model.data.sequence import Turn, build_sequence
from model.data.tokenizer import train_tokenizer
from model.inference.prompts import ask
from model.network.vividmed import VividMedForCausalLM
from tests.model.examples import tiny

BLOCK = (slice(8, 24), slice(20, 34), slice(10, 18))
DISC_XYXY = (20, 60, 52, 92)
ANSWERS = {
    "film.png": "There is a<p> lung nodule</p> below.",
    "ct.nii.gz": "The<p> heart</p> is large. The<p> thingummy</p> is not.",
}


STEPS = 150


@dataclass(frozen=True)
class Memorized:
    model: VividMedForCausalLM
    processor: VividMedProcessor


def text_of(name: str) -> str:
    return parse(ANSWERS[name])[0]


def write_images(folder: Path) -> dict[str, Path]:
    """A film with a bright disc, and an oblique CT of the axes L, S, A with a bright block."""
    folder.mkdir(parents=True, exist_ok=True)
    paths = {name: folder / name for name in ANSWERS}
    rows, columns = np.ogrid[:110, :80]
    disc = (rows - 76) ** 2 + (columns - 36) ** 2 <= 16**2
    Image.fromarray(np.where(disc, 240, 60).astype(np.uint8)).save(paths["film.png"])
    hu = np.full((44, 48, 26), -700, np.int16)
    hu[BLOCK] = 200
    hu[0] = -1024
    nib.Nifti1Image(hu, ct_affine()).to_filename(paths["ct.nii.gz"])
    return paths


def ct_affine() -> NDArray[np.float64]:
    turn = np.radians(12)
    affine = np.eye(4)
    affine[:3, 0] = (-np.cos(turn), np.sin(turn), 0)
    affine[:3, 1] = (0, 0, 1.5)
    affine[:3, 2] = (2.5 * np.sin(turn), 2.5 * np.cos(turn), 0)
    affine[:3, 3] = (80, -20, 300)
    return affine


def block() -> NDArray[np.bool_]:
    voxels = np.zeros((44, 48, 26), np.bool_)
    voxels[BLOCK] = True
    return voxels


@cache
def memorized() -> Memorized:
    """Train on the images of `write_images`, on one core: two that others use too are slower."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        return _train()
    finally:
        torch.set_num_threads(threads)


def _train() -> Memorized:
    torch.manual_seed(0)
    config = tiny()
    tokenizer = train_tokenizer([*ANSWERS.values(), ask("report").query], 320)
    with TemporaryDirectory() as folder:
        samples = [
            _sample(path, ANSWERS[name], tokenizer, config)
            for name, path in write_images(Path(folder)).items()
        ]
    batch = pack(samples)
    model = VividMedForCausalLM(config)
    optimizer = torch.optim.AdamW(model.parameters(), 3e-3, weight_decay=0)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, 3e-3, STEPS)
    for _ in range(STEPS):
        loss = model(**vars(batch)).loss
        optimizer.zero_grad()
        loss.backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()
        schedule.step()
    processor = VividMedProcessor(VividMedImageProcessor.of(config), tokenizer)
    return Memorized(model.eval(), processor)


def _sample(path: Path, answer: str, tokenizer, config: VividMedConfig) -> Sample:
    image, frame = prepare(read_image(path), config)
    turns = [Turn(ask("report").query, answer)]
    text = build_sequence(turns, grid=image.grid, tokenizer=tokenizer, config=config, grounded=True)
    if path.suffix == ".png":
        left, top, right, bottom = DISC_XYXY
        corners = np.array([[[0, top, left], [1, bottom, right]]], float)
        return Sample.of(image, text, [PhraseTarget(boxes=frame.boxes_to_model(corners))])
    mask = frame.mask_to_model(block())
    absent = PhraseTarget(mask=torch.zeros_like(mask), boxes=torch.zeros(0, 6))
    return Sample.of(image, text, [PhraseTarget(mask=mask), absent])
