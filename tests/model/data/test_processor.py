"""Questions about images become batches that generate takes."""

from pathlib import Path

import numpy as np
import pytest
import torch
from transformers import AutoProcessor

from model.data.images import SourceImage, radiograph_image
from model.data.processor import VividMedImageProcessor, VividMedProcessor
from model.data.sequence import Turn, build_prompt
from storage.images.types import Radiograph
from tests.model.examples import tiny, tokenizer


def film(rows: int, columns: int) -> SourceImage:
    pixels = np.random.default_rng(rows).uniform(0.1, 1, (rows, columns)).astype(np.float32)
    return radiograph_image(Radiograph(pixels, None, None, "DX"))


@pytest.fixture
def processor() -> VividMedProcessor:
    return VividMedProcessor(VividMedImageProcessor.of(tiny()), tokenizer())


def test_a_batch_is_padded_on_the_left(processor: VividMedProcessor) -> None:
    images = [film(60, 60), film(90, 20)]
    batch = processor(images, ["What?", "What is seen in this image?"])
    alone = [
        processor([image], [text])
        for image, text in zip(images, ["What?", "What is seen in this image?"], strict=True)
    ]
    assert (
        batch["input_ids"].shape == batch["attention_mask"].shape == batch["token_type_ids"].shape
    )
    for row, single in enumerate(alone):
        length = single["input_ids"].shape[1]
        for name in ("input_ids", "attention_mask", "token_type_ids"):
            assert torch.equal(batch[name][row, -length:], single[name][0])
            assert not batch[name][row, :-length].any()
        assert torch.equal(batch["images"][row].pixels, single["images"][0].pixels)
        assert batch["frames"][row].source.shape == images[row].grid.shape


def test_prompts_are_those_of_training_with_history(processor: VividMedProcessor) -> None:
    history = [Turn("Which modality?", "A<p> film</p>.")]
    batch = processor([film(40, 40)], ["What is seen?"], [history], grounded=False)
    expected = build_prompt(
        history,
        "What is seen?",
        grid=batch["images"][0].grid,
        tokenizer=tokenizer(),
        config=tiny(),
        grounded=False,
    )
    assert torch.equal(batch["input_ids"][0], expected.input_ids)
    assert torch.equal(batch["token_type_ids"][0], expected.token_types)


def test_images_without_a_question_each_are_refused(processor: VividMedProcessor) -> None:
    with pytest.raises(ValueError, match="shorter"):
        processor([film(40, 40)], [])


@pytest.mark.parametrize("loader", [VividMedProcessor, AutoProcessor])
def test_it_is_saved_and_loaded_beside_the_model(
    processor: VividMedProcessor, tmp_path: Path, loader: type[VividMedProcessor | AutoProcessor]
) -> None:
    processor.save_pretrained(tmp_path)
    tiny().save_pretrained(tmp_path)
    loaded = loader.from_pretrained(tmp_path)
    assert isinstance(loaded, VividMedProcessor)
    before, after = (either([film(70, 50)], ["What is<p> seen?"]) for either in (processor, loaded))
    assert torch.equal(before["input_ids"], after["input_ids"])
    assert before["images"][0].grid == after["images"][0].grid
    assert loaded.image_processor.max_vision_tokens == tiny().max_vision_tokens
