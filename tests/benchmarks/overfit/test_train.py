"""A radiograph with a blob and a volume with an ellipsoid, learned together in one packed batch."""

import numpy as np
import pytest
import torch
from torch import nn

from benchmarks.overfit.train import Schedule, parameter_groups, train
from model.config import preset
from model.data.inputs import ModelImage, PhraseTarget, Sample, pack
from model.data.sequence import Turn, build_sequence
from model.data.token_grid import plan
from model.data.tokenizer import train_tokenizer
from model.network.localization.boxes import generalized_iou
from model.network.localization.upscaling import DepthAwareUpsample
from model.network.patches import PatchConv
from model.network.vividmed import VividMedForCausalLM

QUERY = "What is seen?"
ANSWERS = ("The<p> liver</p> is in view.", "There is a<p> lung nodule</p> on the left.")


@pytest.fixture(scope="module", autouse=True)
def one_thread():
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


def tiny():
    config = preset("tiny")
    config.max_vision_tokens = 64
    config.vision.patch_size = config.localizer.patch_size = 4
    return config


def picture(shape, bright, config):
    """Noise with a bright part, and the grid that it is cut into; nothing is resized."""
    grid = plan(
        shape,
        patch_size=config.vision.patch_size,
        pool=config.vision.pool,
        max_tokens=config.max_vision_tokens,
        max_depth_tokens=config.max_depth_tokens,
    )
    assert grid.size == shape
    noise = 0.2 * torch.rand(shape, generator=torch.Generator().manual_seed(0))
    return ModelImage((noise + 0.6 * bright).expand(3, -1, -1, -1), grid)


def ellipsoid(shape, center, radii):
    places = np.indices(shape) - np.reshape(center, (3, 1, 1, 1))
    return torch.from_numpy((places**2 / np.reshape(radii, (3, 1, 1, 1)) ** 2).sum(0) <= 1)


def samples(config):
    liver = ellipsoid((16, 32, 32), (8, 14, 18), (5, 8, 10))
    blob = ellipsoid((1, 64, 64), (0, 20, 44), (1, 6, 6))
    box = torch.tensor([[0.5, 20.5 / 64, 44.5 / 64, 1, 13 / 64, 13 / 64]])
    tokenizer = train_tokenizer([QUERY, *ANSWERS], 300)
    targets = (PhraseTarget(mask=liver), PhraseTarget(boxes=box))
    made = []
    for bright, answer, target in zip((liver, blob), ANSWERS, targets, strict=True):
        image = picture(tuple(bright.shape), bright, config)
        text = build_sequence(
            [Turn(QUERY, answer)],
            grid=image.grid,
            tokenizer=tokenizer,
            config=config,
            grounded=True,
        )
        made.append(Sample.of(image, text, [target]))
    return made


def learned(schedule):
    torch.manual_seed(0)
    config = tiny()
    model = VividMedForCausalLM(config)
    losses = []
    train(model, samples(config), schedule, lambda _, loss: losses.append(loss))
    return model, losses


def test_a_mask_in_a_volume_and_a_box_in_a_radiograph_are_learned_with_their_texts():
    model, losses = learned(Schedule(steps=200, warmup=20))
    assert losses[-1] < losses[0] / 10

    batch = pack(samples(model.config))
    volume, radiograph = model.localize(
        batch.input_ids,
        images=batch.images,
        token_type_ids=batch.token_type_ids,
        lengths=batch.lengths,
    )
    (liver,), (nodule,) = batch.targets
    assert liver.mask is not None
    assert nodule.boxes is not None
    found = volume.mask_logits[0] > 0
    assert 2 * (found & liver.mask).sum() / (found.sum() + liver.mask.sum()) > 0.8
    best = radiograph.presence_logits[0].argmax()
    assert radiograph.presence_logits[0, best] > 0
    assert generalized_iou(radiograph.boxes[0, best], nodule.boxes[0]) > 0.5

    logits = model(**{**vars(batch), "labels": None, "targets": None}).logits
    wanted = batch.labels != -100
    assert torch.equal(logits.argmax(-1)[wanted], batch.labels[wanted])


def test_training_twice_gives_the_same_model():
    schedule = Schedule(steps=3, warmup=1)
    (one, losses), (other, again) = learned(schedule), learned(schedule)
    assert losses == again
    for first, second in zip(one.parameters(), other.parameters(), strict=True):
        assert torch.equal(first, second)


def test_only_weights_of_linear_and_convolution_layers_decay():
    model = VividMedForCausalLM(tiny())
    spared, decayed = parameter_groups(model, 0.1)
    assert (spared["weight_decay"], decayed["weight_decay"]) == (0, 0.1)
    kinds = {}
    for module in model.modules():
        for parameter in module.parameters(recurse=False):
            kinds[id(parameter)] = (module, parameter.ndim)
    assert len(spared["params"]) + len(decayed["params"]) == len(kinds)
    for parameter in decayed["params"]:
        module, dimensions = kinds[id(parameter)]
        assert isinstance(module, nn.Linear | DepthAwareUpsample)
        assert dimensions > 1
    for parameter in spared["params"]:
        module, dimensions = kinds[id(parameter)]
        assert dimensions == 1 or not isinstance(module, nn.Linear | DepthAwareUpsample)
    assert any(isinstance(kinds[id(parameter)][0], PatchConv) for parameter in spared["params"])
