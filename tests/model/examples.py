"""Small images and conversations for the tests of the whole model."""

from collections.abc import Sequence
from functools import cache

import torch

from model.config import VividMedConfig, preset
from model.data.inputs import ModelImage, PhraseTarget, Sample
from model.data.sequence import Turn, build_sequence
from model.data.token_grid import TokenGrid, plan
from model.data.tokenizer import train_tokenizer

REPORT = "The<p> heart</p> is large. There is a<p> left pleural effusion</p>."
ANSWERS = (REPORT, "Results:<p> liver</p>: yes,<np> lung nodule</np>: no.", "Nothing is seen.")
SHAPES = ((1, 40, 60), (20, 48, 48), (3, 33, 30))


@cache
def tokenizer():
    return train_tokenizer([*ANSWERS, "What is seen?", "Which modality?"], 320)


def tiny(**changes) -> VividMedConfig:
    config = preset("tiny")
    for name, value in {"max_vision_tokens": 16, **changes}.items():
        setattr(config, name, value)
    return config


def image(shape: tuple[int, int, int], seed: int = 0) -> ModelImage:
    config = tiny()
    grid = plan(
        shape,
        patch_size=config.vision.patch_size,
        pool=config.vision.pool,
        max_tokens=config.max_vision_tokens,
        max_depth_tokens=config.max_depth_tokens,
    )
    random = torch.Generator().manual_seed(seed)
    return ModelImage(torch.rand(3, *grid.size, generator=random), grid)


def target(grid: TokenGrid) -> PhraseTarget:
    """A box for a radiograph, a mask for a volume."""
    if grid.size[0] == 1:
        return PhraseTarget(boxes=torch.tensor([[0.5, 0.4, 0.6, 1, 0.2, 0.3]]))
    mask = torch.zeros(grid.size, dtype=torch.bool)
    mask[..., : grid.size[2] // 2] = True
    return PhraseTarget(mask=mask)


def sample(picture: ModelImage, answer: str, **changes) -> Sample:
    options = {
        "grid": picture.grid,
        "tokenizer": tokenizer(),
        "config": tiny(),
        "grounded": True,
        **changes,
    }
    text = build_sequence([Turn("What is seen?", answer)], **options)
    written = text.num_phrases + text.num_cut
    return Sample.of(picture, text, [target(picture.grid) for _ in range(written)])


def samples(answers: Sequence[str] = ANSWERS) -> list[Sample]:
    """A radiograph, a volume and a few thick slices, each with one of the answers."""
    pictures = [image(shape, seed) for seed, shape in enumerate(SHAPES)]
    return [sample(*pair) for pair in zip(pictures, answers, strict=True)]
