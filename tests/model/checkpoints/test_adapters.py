"""Adapters that PEFT wrote, as the released one was, on our model."""

from __future__ import annotations

import json
from copy import deepcopy
from dataclasses import fields
from pathlib import Path
from typing import Literal

import numpy as np
import pytest
import torch
from peft import LoraConfig, PeftModel, get_peft_model
from torch import Tensor, nn

from model.checkpoints.adapters import load_adapter, merge_adapter
from model.checkpoints.check import check
from model.checkpoints.report import CheckReport
from model.checkpoints.weights import CheckpointError, Weights
from model.config import VividMedConfig, preset
from model.data.inputs import ModelImage, pack
from model.data.token_grid import plan
from model.network.vividmed import VividMedForCausalLM
from tests.model.examples import samples

FROZEN = {"model.vision"}
LOCALIZING = ("sam.", "isam_model.", "vg_proj.")


@pytest.fixture(scope="module")
def base() -> VividMedForCausalLM:
    torch.manual_seed(0)
    return VividMedForCausalLM(preset("tiny")).eval()


def write_adapter(model: nn.Module, folder: Path, *, localizing: bool = True) -> None:
    """Adapt as the released code does: every linear layer of the language model gets an update.

    Every other module with weights of its own is trained whole; bare parameters cannot be.
    """
    layers, modules = [], []
    for name, module in model.named_modules():
        if not list(module.parameters(recurse=False)) or name in FROZEN:
            continue
        if name.startswith(LOCALIZING):
            modules += [name] * localizing
        elif isinstance(module, nn.Linear) and name != "lm_head":
            layers.append(name)
        else:
            modules.append(name)
    config = LoraConfig(
        r=64,
        lora_alpha=8,
        lora_dropout=0.05,
        use_rslora=True,
        target_modules=layers,
        modules_to_save=modules,
    )
    adapted = get_peft_model(deepcopy(model), config)
    torch.manual_seed(5)
    for parameter in adapted.parameters():
        if parameter.requires_grad:
            nn.init.normal_(parameter, std=0.02)
    adapted.save_pretrained(str(folder))


@pytest.fixture(scope="module")
def adapter(base: VividMedForCausalLM, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("stage-1")
    write_adapter(base, folder)
    return folder


@torch.no_grad()
def logits(model: nn.Module) -> Tensor:
    """The answer to one image and a few words."""
    torch.manual_seed(2)
    config = preset("tiny")
    grid = plan(
        (1, 40, 24),
        patch_size=config.vision.patch_size,
        pool=config.vision.pool,
        max_tokens=16,
        max_depth_tokens=4,
        rng=np.random.default_rng(0),
    )
    image = ModelImage(torch.rand(3, *grid.size), grid)
    places = grid.num_tokens + 2
    words = [6, 30, 31, 8, 40, 9, 32]
    return model(
        torch.tensor([[1, *[0] * places, *words]]),
        token_type_ids=torch.tensor([[0, *[1] * places, *[0] * len(words)]]),
        images=[image],
    ).logits


def without_biases(report: CheckReport) -> set[str]:
    """What an adapter does not touch, beside the biases of layers whose weights it updates."""
    updated = {of.target.removesuffix("weight") + "bias" for of in report.reshaped}
    return {key for keys in report.absent.values() for key in keys} - updated


def test_the_file_has_the_published_keys(adapter: Path) -> None:
    keys = set(Weights(adapter, headers=True))
    assert {
        "base_model.model.model.layers.0.self_attn.vision_expert_query_key_value.lora_A.weight",
        "base_model.model.model.vision.transformer.layers.1.mlp.fc1.lora_B.weight",
        "base_model.model.model.vision.patch_embedding.cls_pos_embed.weight",
        "base_model.model.model.vision.patch_embedding.proj.bias",
        "base_model.model.model.embed_tokens.weight",
        "base_model.model.lm_head.weight",
        "base_model.model.vg_proj.2.bias",
        "base_model.model.sam.image_encoder.blocks.0.norm1.weight",
    } <= keys
    assert "base_model.model.model.vision.boi" not in keys


def test_merged_is_what_peft_computes(base: VividMedForCausalLM, adapter: Path) -> None:
    expected = PeftModel.from_pretrained(deepcopy(base), str(adapter)).eval()
    merged = deepcopy(base)
    report = merge_adapter(merged, adapter)
    assert report.fits
    assert report.layout == "LoRA adapter"
    torch.testing.assert_close(logits(merged), logits(expected), rtol=1e-4, atol=1e-4)
    assert (logits(merged) - logits(base)).abs().max() > 1e-2
    assert without_biases(report) == {
        "model.vision.boi",
        "model.vision.eoi",
        "sam.prompt_encoder.pe_layer.positional_encoding_gaussian_matrix",
    }


def test_an_adapter_can_be_trained_on_and_saved(
    base: VividMedForCausalLM, adapter: Path, tmp_path: Path
) -> None:
    adapted, _ = load_adapter(deepcopy(base), adapter)
    merged = deepcopy(base)
    merge_adapter(merged, adapter)
    adapted.eval()
    torch.testing.assert_close(logits(adapted), logits(merged), rtol=1e-4, atol=1e-4)
    trained = [name for name, of in adapted.named_parameters() if of.requires_grad]
    assert all("lora_" in name or "modules_to_save" in name for name in trained)
    assert any("lora_A" in name for name in trained)
    adapted.save_pretrained(str(tmp_path))
    saved, original = Weights(tmp_path), Weights(adapter)
    assert set(saved) == set(original)
    assert all(torch.equal(saved[key], original[key]) for key in original)


@pytest.mark.parametrize("localizers", ["shared", "separate"])
def test_adapted_localizers_find_what_merged_ones_do(
    localizers: Literal["shared", "separate"], tmp_path: Path
) -> None:
    torch.manual_seed(0)
    config = preset("tiny")
    config.localizers = localizers
    base = VividMedForCausalLM(config).eval()
    write_adapter(base, tmp_path)
    adapted = PeftModel.from_pretrained(deepcopy(base), str(tmp_path)).eval()
    merged = deepcopy(base)
    assert merge_adapter(merged, tmp_path).fits
    wrapped = adapted.get_base_model()
    assert isinstance(wrapped, VividMedForCausalLM)
    batch = pack(samples())
    given = {name: getattr(batch, name) for name in ("images", "token_type_ids", "lengths")}
    found, expected, before = (
        model.localize(batch.input_ids, **given) for model in (wrapped, merged, base)
    )
    for ours, theirs, old in zip(found[:2], expected, before, strict=False):
        for name in ("mask_logits", "boxes", "presence_logits"):
            torch.testing.assert_close(getattr(ours, name), getattr(theirs, name))
            assert (getattr(ours, name) - getattr(old, name)).abs().max() > 1e-2


def test_a_step_moves_the_adapter_and_nothing_else(
    base: VividMedForCausalLM, adapter: Path
) -> None:
    adapted, _ = load_adapter(deepcopy(base), adapter)
    adapted.train()
    adapted.gradient_checkpointing_enable()
    before = {name: of.detach().clone() for name, of in adapted.named_parameters()}
    trained = {name: of for name, of in adapted.named_parameters() if of.requires_grad}
    optimizer = torch.optim.AdamW(trained.values(), lr=1e-3)
    batch = pack(samples())
    adapted(**{of.name: getattr(batch, of.name) for of in fields(batch)}).loss.backward()
    optimizer.step()
    moved = {name for name, of in adapted.named_parameters() if not torch.equal(of, before[name])}
    assert moved <= set(trained)
    layer = "base_model.model.model.layers.0"
    assert f"{layer}.self_attn.vision_expert_query_key_value.lora_B.default.weight" in moved
    assert f"{layer}.input_layernorm.modules_to_save.default.weight" in moved
    assert "base_model.model.sam.box_head.4.modules_to_save.default.weight" in moved
    assert not {f"base_model.model.model.vision.{of}" for of in ("boi", "eoi")} & set(trained)


def test_an_adapter_merges_into_a_plain_model_again(
    base: VividMedForCausalLM, adapter: Path
) -> None:
    adapted, _ = load_adapter(deepcopy(base), adapter)
    plain = adapted.merge_and_unload().eval()
    merged = deepcopy(base)
    merge_adapter(merged, adapter)
    assert type(plain) is VividMedForCausalLM
    assert set(plain.state_dict()) == set(base.state_dict())
    for key, value in merged.state_dict().items():
        torch.testing.assert_close(plain.state_dict()[key], value, rtol=1e-4, atol=1e-5)


def test_the_second_stage_leaves_the_localizer_alone(
    base: VividMedForCausalLM, tmp_path: Path
) -> None:
    write_adapter(base, tmp_path, localizing=False)
    merged = deepcopy(base)
    report = merge_adapter(merged, tmp_path)
    assert report.fits
    localizing = {key for key in base.state_dict() if key.startswith(LOCALIZING)}
    assert without_biases(report) == localizing | {
        "model.vision.boi",
        "model.vision.eoi",
    }
    for key in localizing:
        assert torch.equal(merged.state_dict()[key], base.state_dict()[key])


def test_keys_without_a_module_are_reported_and_left_out(
    base: VividMedForCausalLM, tmp_path: Path
) -> None:
    """An adapter of the released two networks, on the one network of the paper."""
    torch.manual_seed(3)
    config = preset("tiny")
    config.localizers = "separate"
    write_adapter(VividMedForCausalLM(config), tmp_path)
    # Its masks network has fewer instance tokens than the one with both branches.
    single = VividMedForCausalLM(config)
    single.isam_model = None
    adapted, report = load_adapter(single, tmp_path)
    assert report.unexpected
    assert all(key.startswith("base_model.model.isam_model.") for key in report.unexpected)
    assert not report.fits
    assert logits(adapted.eval()).isfinite().all()


def test_check_recognizes_an_adapter(adapter: Path) -> None:
    report = check(adapter, "tiny")
    assert report.fits
    assert report.layout == "LoRA adapter"
    qkv = "model.layers.0.self_attn.language_expert_query_key_value"
    entry = next(of for of in report.reshaped if of.target == f"{qkv}.weight")
    assert (entry.from_shape, entry.to_shape) == ((64, 128), (384, 128))
    assert entry.how == "low-rank update added"


def test_an_adapter_of_another_size_is_refused_and_changes_nothing(adapter: Path) -> None:
    small = preset("tiny").to_dict() | {"hidden_size": 64, "intermediate_size": 96}
    model = VividMedForCausalLM(VividMedConfig.from_dict(small))
    before = deepcopy(model.state_dict())
    for load in (merge_adapter, load_adapter):
        with pytest.raises(CheckpointError, match="do not fit"):
            load(model, adapter)
    assert all(torch.equal(value, before[key]) for key, value in model.state_dict().items())


def test_an_adapter_of_another_model_is_refused(base: VividMedForCausalLM, tmp_path: Path) -> None:
    llama = nn.ModuleDict({"q_proj": nn.Linear(8, 8), "v_proj": nn.Linear(8, 8)})
    get_peft_model(llama, LoraConfig(target_modules=["q_proj"])).save_pretrained(str(tmp_path))
    assert len(check(tmp_path, "tiny").unexpected) == 1
    with pytest.raises(CheckpointError, match="no tensor of the adapter"):
        merge_adapter(base, tmp_path)


def test_an_adapter_that_is_more_than_low_rank_is_refused(adapter: Path, tmp_path: Path) -> None:
    config = json.loads((adapter / "adapter_config.json").read_text())
    (tmp_path / "adapter_config.json").write_text(json.dumps(config | {"use_dora": True}))
    with pytest.raises(CheckpointError, match="not plain LoRA"):
        check(tmp_path, "tiny")


def test_a_folder_without_weights_is_refused(adapter: Path, tmp_path: Path) -> None:
    (tmp_path / "adapter_config.json").write_bytes((adapter / "adapter_config.json").read_bytes())
    with pytest.raises(CheckpointError, match="holds no weights"):
        check(tmp_path, "tiny")


@pytest.mark.parametrize("text", ["", "[]", '{"peft_type": "IA3"}', '{"peft_type": "nothing"}'])
def test_a_damaged_configuration_is_refused(tmp_path: Path, text: str) -> None:
    (tmp_path / "adapter_config.json").write_text(text)
    with pytest.raises(CheckpointError, match=str(tmp_path)):
        check(tmp_path, "tiny")


def test_half_precision_is_merged_in_single(base: VividMedForCausalLM, adapter: Path) -> None:
    half, single = deepcopy(base).to(torch.bfloat16), deepcopy(base)
    merge_adapter(half, adapter)
    merge_adapter(single, adapter)
    key = "model.layers.0.mlp.language_mlp.gate_proj.weight"
    merged = half.state_dict()[key]
    assert merged.dtype == torch.bfloat16
    torch.testing.assert_close(merged.float(), single.state_dict()[key], rtol=0.02, atol=2e-3)


def test_an_adapter_is_trained_in_the_type_of_what_it_adapts(
    base: VividMedForCausalLM, adapter: Path
) -> None:
    half = deepcopy(base)
    half.model.to(torch.bfloat16)
    half.lm_head.to(torch.bfloat16)
    adapted, _ = load_adapter(half, adapter)
    for name, of in adapted.named_parameters():
        wanted = torch.float32 if ".sam." in name or ".vg_proj." in name else torch.bfloat16
        assert of.dtype == wanted, name
