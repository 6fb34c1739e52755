"""Prediction: from image files and a task to text with grounded phrases.

Generation is greedy, as in the paper. When the answers are complete, one forward pass over the
whole sequences gives the hidden states of their phrases, which prompt the localizer: they equal the
states during generation, which therefore need not be kept.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from itertools import islice
from pathlib import Path

import torch
from torch import Tensor
from torch.nn.functional import pad
from transformers.feature_extraction_utils import BatchFeature

from model.data.images import Frame, SourceImage, read_image
from model.data.inputs import ModelImage
from model.data.processor import VividMedProcessor
from model.inference.answers import Answer, finished, read_answer
from model.inference.prompts import Question
from model.inference.regions import Pointer
from model.inference.streaming import Streamer
from model.network.localization.localizer import Localization
from model.network.vividmed import VividMedForCausalLM
from storage.images.types import ImageError
from storage.records import Tag

MAX_NEW_TOKENS = 1024
"""The longest answer, as in the paper's evaluation."""


@dataclass(frozen=True)
class Prediction:
    """An answer about an image and its tags, in reading order.

    Boxes and masks lie on the grid of the image's file.

    complete: False if the answer was cut off at `max_new_tokens`.
    """

    path: Path
    source: SourceImage
    question: Question
    text: str
    tags: tuple[Tag, ...]
    complete: bool


def predict(
    model: VividMedForCausalLM,
    processor: VividMedProcessor,
    paths: Sequence[Path],
    question: Question,
    pointer: Pointer,
    *,
    batch_size: int = 4,
    max_new_tokens: int = MAX_NEW_TOKENS,
    write: Callable[[str], None] | None = None,
    skip: Callable[[Path, ImageError], None] | None = None,
) -> Iterator[Prediction]:
    """Ask one question about every image, and yield predictions batch by batch.

    Args:
        model: in evaluation mode, on its device.
        processor: processor of the model.
        paths: files of radiographs and CTs, folders of DICOM series.
        question: see `model.inference.prompts`.
        pointer: turns the localizer's output into tags.
        batch_size: images in a batch.
        max_new_tokens: the longest answer, in tokens.
        write: receives the text during generation, if there is only one image.
        skip: receives an image that cannot be read, which is then left out.

    Raises:
        ImageError: if an image cannot be read, unless there is `skip`.
    """
    streamer = Streamer(processor.tokenizer, write) if write and len(paths) == 1 else None
    readable = _read(paths, skip)
    while pairs := list(islice(readable, batch_size)):
        batch, sources = [path for path, _ in pairs], [source for _, source in pairs]
        inputs = processor(sources, [question.query] * len(sources), grounded=question.grounded)
        # `generate` refuses arguments that the model does not take.
        frames: Sequence[Frame] = inputs.pop("frames")
        inputs = _on_device(inputs, model.device)
        sequences = model.generate(
            **inputs, max_new_tokens=max_new_tokens, do_sample=False, streamer=streamer
        )
        # Prompts are padded on the left, so that all answers begin in the same column.
        generated = sequences[:, inputs["input_ids"].shape[1] :]
        tokens = [finished(row, model.config) for row in generated]
        answers = [read_answer(row, processor.tokenizer, model.config) for row in tokens]
        located = _localize(model, inputs, tokens, answers, pointer)
        # A complete answer is shorter than its row, which holds its end token too.
        ended = [len(row) < generated.shape[1] for row in tokens]
        for path, source, answer, frame, found, complete in zip(
            batch, sources, answers, frames, located, ended, strict=True
        ):
            tags = pointer.point(answer.text, answer.spans, found, frame)
            yield Prediction(path, source, question, answer.text, tuple(tags), complete)


def _read(
    paths: Sequence[Path], skip: Callable[[Path, ImageError], None] | None
) -> Iterator[tuple[Path, SourceImage]]:
    for path in paths:
        try:
            yield path, read_image(path)
        except ImageError as error:
            if skip is None:
                raise
            skip(path, error)


def _on_device(inputs: BatchFeature, device: torch.device) -> BatchFeature:
    images = [ModelImage(image.pixels.to(device), image.grid) for image in inputs["images"]]
    return BatchFeature({**inputs.to(device), "images": images})


def _localize(
    model: VividMedForCausalLM,
    inputs: BatchFeature,
    tokens: Sequence[Tensor],
    answers: Sequence[Answer],
    pointer: Pointer,
) -> list[Localization]:
    """Localize the phrases of complete answers; without phrases nothing is computed."""
    if not any(answer.spans for answer in answers):
        return [Localization()] * len(answers)
    longest = max(len(row) for row in tokens)

    def appended(name: str, answer_rows: Sequence[Tensor]) -> Tensor:
        """An input of the prompts, (answers, tokens), followed by that of the answers."""
        rows = torch.stack([pad(row, (0, longest - len(row))) for row in answer_rows])
        return torch.cat([inputs[name], rows], dim=1)

    return model.localize(
        appended("input_ids", tokens),
        images=inputs["images"],
        attention_mask=appended("attention_mask", [torch.ones_like(row) for row in tokens]),
        token_type_ids=appended("token_type_ids", [torch.zeros_like(row) for row in tokens]),
        masks=pointer.uses_masks,
        boxes=pointer.uses_boxes,
    )
