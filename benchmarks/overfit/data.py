"""The training cases: a real CT, a radiograph projected from it, and texts about them.

`cases.yaml` has the structures that the texts name. Their masks and boxes are made on the grid of
the image's file, and mapped to the prepared image by the frame that maps predictions back.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable, Sequence
from dataclasses import dataclass
from importlib.resources import files
from pathlib import Path
from typing import Literal

import numpy as np
import yaml
from numpy.typing import NDArray
from pydantic import BaseModel, ConfigDict
from transformers import PreTrainedTokenizerBase

from benchmarks.overfit.reference import Reference, Voxels
from model.config import VividMedConfig
from model.data.brackets import parse
from model.data.images import Frame, prepare, read_image
from model.data.inputs import ModelImage, PhraseTarget, Sample
from model.data.sequence import Turn, build_sequence
from model.inference.prompts import Question, Task, ask
from storage.datasets import chest_ct
from storage.imaging.projection import FrontalGrid, project, project_mask, write_radiograph_dicom
from storage.masks import mask_box

TrainedRegion = Literal["mask", "boxes"]
ToFile = Callable[[Voxels], Voxels]
"""Maps a mask (x, y, z) on the CT's RAS+ grid to the grid of an image's file."""


class ExchangeRecipe(BaseModel):
    """A task and its answer in `cases.yaml`."""

    model_config = ConfigDict(extra="forbid")

    task: Task
    prompt: str | None = None
    answer: str
    grounding: list[TrainedRegion] = []


class Recipe(BaseModel):
    """The content of `cases.yaml`."""

    model_config = ConfigDict(extra="forbid")

    structures: dict[str, list[str]]
    phrases: dict[str, list[str]]
    images: dict[Literal["ct", "radiograph"], list[ExchangeRecipe]]

    def instances(self, phrase: str) -> list[list[str]]:
        """The reference labels of each instance of a phrase."""
        return [self.structures[name] for name in self.phrases.get(phrase, [phrase])]


def load_recipe() -> Recipe:
    """Read `cases.yaml`."""
    text = files(__package__).joinpath("cases.yaml").read_text("utf-8")
    return Recipe.model_validate(yaml.safe_load(text))


@dataclass(frozen=True)
class Truth:
    """Where a phrase's instances are, on the grid of the image's file.

    mask: bool, their union; None: not trained.
    boxes: (instances, 2, 3), lowest and highest corner in voxels, half-open; None: not trained.
    """

    phrase: str
    mask: Voxels | None
    boxes: NDArray[np.float64] | None

    @classmethod
    def of(
        cls, phrase: str, instances: Sequence[Voxels], grounding: Collection[TrainedRegion]
    ) -> Truth:
        """The union and the boxes of instances, for the kinds of grounding that are trained."""
        corners = [
            [(side.start, side.stop) for side in mask_box(instance)] for instance in instances
        ]
        return cls(
            phrase,
            np.any(instances, axis=0) if "mask" in grounding else None,
            np.array(corners, np.float64).transpose(0, 2, 1) if "boxes" in grounding else None,
        )

    def target(self, frame: Frame) -> PhraseTarget:
        """The training target in the prepared image."""
        return PhraseTarget(
            None if self.mask is None else frame.mask_to_model(self.mask),
            None if self.boxes is None else frame.boxes_to_model(self.boxes),
        )


@dataclass(frozen=True)
class Exchange:
    """A question about an image and its answer, with one truth for each phrase in brackets."""

    question: Question
    answer: str
    truths: tuple[Truth, ...]


@dataclass(frozen=True)
class Case:
    """An image and the exchanges about it."""

    name: str
    path: Path
    image: ModelImage
    frame: Frame
    exchanges: tuple[Exchange, ...]

    def samples(self, tokenizer: PreTrainedTokenizerBase, config: VividMedConfig) -> list[Sample]:
        """The training samples, one for each exchange."""
        return [
            Sample.of(
                self.image,
                build_sequence(
                    [Turn(exchange.question.query, exchange.answer)],
                    grid=self.image.grid,
                    tokenizer=tokenizer,
                    config=config,
                    grounded=exchange.question.grounded,
                ),
                [truth.target(self.frame) for truth in exchange.truths],
            )
            for exchange in self.exchanges
        ]


def phrases_of(answer: str) -> list[str]:
    """The phrases in brackets, in reading order."""
    text, spans = parse(answer)
    return [text[start:end] for start, end in spans]


def make_cases(
    recipe: Recipe, reference: Reference, config: VividMedConfig, folder: Path
) -> list[Case]:
    """Prepare the CT and its radiograph.

    Args:
        recipe: the texts and the structures that they name.
        reference: the CT and its label map.
        config: has the token budget and the patch size.
        folder: folder for the projected radiograph, `radiograph.dcm`.
    """
    paths = {"ct": chest_ct.ct_path(), "radiograph": folder / "radiograph.dcm"}
    picture = project(reference.volume)
    write_radiograph_dicom(picture, paths["radiograph"], "projected from a chest CT")
    cases = []
    for name, exchanges in recipe.images.items():
        # Read from the file, as a user's image is, not from memory.
        image, frame = prepare(read_image(paths[name]), config)
        to_file = _to_ct(frame) if name == "ct" else _to_radiograph(reference)
        made = tuple(_exchange(planned, recipe, reference, to_file) for planned in exchanges)
        cases.append(Case(name, paths[name], image, frame, made))
    return cases


def _exchange(
    exchange: ExchangeRecipe, recipe: Recipe, reference: Reference, to_file: ToFile
) -> Exchange:
    truths = []
    for phrase in phrases_of(exchange.answer):
        masks = [to_file(reference.union(labels)) for labels in recipe.instances(phrase)]
        truths.append(Truth.of(phrase, masks, exchange.grounding))
    return Exchange(ask(exchange.task, exchange.prompt), exchange.answer, tuple(truths))


def _to_ct(frame: Frame) -> ToFile:
    return frame.source.from_ras


def _to_radiograph(reference: Reference) -> ToFile:
    affine = reference.volume.affine
    grid = FrontalGrid.of(reference.volume)
    return lambda mask: project_mask(mask, affine, grid)[None]


def texts_of(cases: Iterable[Case]) -> list[str]:
    """All questions and answers, to train the tokenizer on."""
    exchanges = [exchange for case in cases for exchange in case.exchanges]
    return [text for exchange in exchanges for text in (exchange.question.query, exchange.answer)]
