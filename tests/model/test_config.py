"""The presets: whole models of consistent sizes, the same after a round through JSON."""

import json
from typing import Literal

import pytest
import torch

from model.checkpoints.check import blank_model
from model.config import VividMedConfig, preset
from model.data.inputs import ModelImage
from model.data.token_grid import plan

PRESETS = ("paper", "tiny", "mid")
SPECIAL = ("sys", "usr", "grd", "ngrd", "bop", "eop", "bonp", "eonp")


@pytest.mark.parametrize("name", PRESETS)
def test_a_preset_survives_its_file(name: str) -> None:
    config = preset(name)
    again = VividMedConfig.from_dict(json.loads(config.to_json_string(use_diff=False)))
    assert again.to_dict() == config.to_dict()
    assert type(again.vision) is type(config.vision)


@pytest.mark.parametrize("name", PRESETS)
def test_special_tokens_have_ids_of_their_own_within_the_vocabulary(name: str) -> None:
    config = preset(name)
    ids = [getattr(config, f"{of}_token_id") for of in ("pad", "bos", "eos", *SPECIAL)]
    assert len(set(ids)) == len(ids)
    assert max(ids) < config.vocab_size


def test_the_paper_s_numbers() -> None:
    config = preset("paper")
    language = {
        "hidden_size": 4096,
        "intermediate_size": 11008,
        "num_hidden_layers": 32,
        "num_attention_heads": 32,
        "rms_norm_eps": 1e-5,  # the released chat weights'; the class they came with says 1e-6
        "rope_theta": 10000,
        "localizers": "shared",
        "prompt_state": "close",
        "max_vision_tokens": 256,
        "max_depth_tokens": 4,
    }
    vision = {
        "hidden_size": 1792,
        "intermediate_size": 15360,
        "num_hidden_layers": 63,
        "num_heads": 16,
        "layer_norm_eps": 1e-6,
        "patch_size": 16,
        "pool": 2,
    }
    localizer = {
        "hidden_size": 768,
        "intermediate_size": 3072,
        "num_hidden_layers": 12,
        "num_heads": 12,
        "qkv_bias": False,
        "layer_norm_eps": 1e-5,
        "patch_size": 16,
        "decoder_layers": 2,
        "decoder_heads": 8,
        "decoder_intermediate_size": 2048,
        "decoder_downsample": 2,
        "num_instances": 6,
    }
    parts = ((config, language), (config.vision, vision), (config.localizer, localizer))
    for part, numbers in parts:
        assert {name: getattr(part, name) for name in numbers} == numbers
    assert tuple(config.vision.position_grid) == (8, 32, 32)
    assert tuple(config.localizer.position_grid) == (8, 32, 32)


def test_the_paper_s_tokens_follow_vicuna_s_words() -> None:
    config = preset("paper")
    assert [getattr(config, f"{of}_token_id") for of in SPECIAL] == [*range(32000, 32008)]
    assert config.vocab_size == 32008


@pytest.mark.parametrize("localizers", ["shared", "separate"])
@pytest.mark.parametrize("name", PRESETS)
def test_the_sizes_of_a_preset_fit_each_other(
    name: str, localizers: Literal["shared", "separate"]
) -> None:
    """A CT through every part on the meta device, which computes shapes alone."""
    config = preset(name)
    config.localizers = localizers
    model = blank_model(config)
    grid = plan(
        (20, 300, 200),
        patch_size=config.vision.patch_size,
        pool=config.vision.pool,
        max_tokens=config.max_vision_tokens,
        max_depth_tokens=config.max_depth_tokens,
    )
    image = ModelImage(torch.empty(3, *grid.size, device="meta"), grid)
    [tokens] = model.model.vision([image])
    assert tokens.shape == (grid.num_tokens + 2, config.hidden_size)
    prompts = model.vg_proj(torch.empty(2, config.hidden_size, device="meta"))
    for network, masks, boxes in model._branches():
        [found] = network([image], [prompts], masks=masks, boxes=boxes)
        if masks:
            assert found.mask_logits.shape == (2, *grid.size)
        if boxes:
            assert found.boxes.shape == (2, config.localizer.num_instances, 6)


def test_an_unknown_preset_is_answered_with_those_there_are() -> None:
    with pytest.raises(KeyError, match="no preset 'huge': choose one of paper, tiny, mid"):
        preset("huge")
