"""Published checkpoints of promptable networks become our localizer."""

from __future__ import annotations

import argparse
from pathlib import Path

import pytest
import torch
from torch.nn.functional import conv2d

from model.checkpoints.localizers import load_localizer, sam_localizer_config
from model.checkpoints.weights import CheckpointError, Weights
from model.config import LocalizerConfig
from model.network.localization.localizer import Localizer
from tests.model.checkpoints.released import TABLES, Shapes, shapes, tensors

SIZES = TABLES["small"]["localizer"]
INSTANCES = 6
STEM = "image_encoder.patch_embedding"


def localizer(*, qkv_bias: bool = False, hidden_size: int = SIZES["hidden"]) -> Localizer:
    config = LocalizerConfig(
        hidden_size=hidden_size,
        intermediate_size=SIZES["mlp"],
        num_hidden_layers=SIZES["blocks"],
        num_heads=4,
        qkv_bias=qkv_bias,
        decoder_heads=4,
        decoder_intermediate_size=SIZES["decoder_mlp"],
    )
    torch.manual_seed(1)
    return Localizer(config, num_instances=INSTANCES, boxes=True)


def listed(by_reason: dict[str, list[str]]) -> list[str]:
    return [key for keys in by_reason.values() for key in keys]


def segvol_shapes() -> Shapes:
    return shapes({**SIZES, "hypernets": 4}, "localizer", "segvol")


@pytest.fixture
def segvol(tmp_path: Path) -> tuple[Path, dict[str, torch.Tensor]]:
    """SegVol's file, and its tensors without their prefix."""
    torch.manual_seed(0)
    weights = tensors(segvol_shapes())
    path = tmp_path / "pytorch_model.bin"
    torch.save({f"model.{key}": value for key, value in weights.items()}, path)
    return path, weights


def test_segvol_leaves_only_what_it_never_had(segvol: tuple[Path, dict[str, torch.Tensor]]) -> None:
    path, weights = segvol
    report = load_localizer(localizer(), path)
    assert report.fits
    assert report.layout == "SegVol"
    assert report.tensors == len(weights)
    assert report.parameters == sum(value.numel() for value in weights.values())
    assert report.dtypes == {"float32": len(weights)}
    assert {key.split(".")[0] for key in listed(report.absent)} == {"box_head", "disc_head"}
    ignored = " ".join(listed(report.ignored))
    for part in ("text_encoder", "iou_prediction_head", "point_embeddings", "mlps.3", "mask_down"):
        assert part in ignored


def test_segvol_keeps_the_tensors_that_need_no_change(
    segvol: tuple[Path, dict[str, torch.Tensor]],
) -> None:
    path, weights = segvol
    ours = localizer()
    report = load_localizer(ours, path)
    changed = {entry.target for entry in report.reshaped}
    state = ours.state_dict()
    same = [key for key in weights if key in state and key not in changed]
    assert len(same) > 100
    assert all(torch.equal(state[key], weights[key]) for key in same)


def test_segvol_answers_an_even_image_as_before(
    segvol: tuple[Path, dict[str, torch.Tensor]],
) -> None:
    """One channel and a patch of 4 slices there, three and 16 here: the same response."""
    path, weights = segvol
    ours = localizer()
    load_localizer(ours, path)
    stem = f"{STEM}.patch_embeddings.1"
    there = weights[f"{stem}.weight"] @ torch.full((1024,), 0.7) + weights[f"{stem}.bias"]
    for patch_depth in (1, 4, 16):
        image = torch.full((3, patch_depth, 16, 16), 0.7)
        here = ours.image_encoder.patch_embedding.proj(image, patch_depth)
        torch.testing.assert_close(here[0], there, rtol=1e-4, atol=1e-4)


def test_segvol_patches_are_depth_first(segvol: tuple[Path, dict[str, torch.Tensor]]) -> None:
    path, weights = segvol
    row = torch.zeros(4, 16, 16)
    row[3, 5, 9] = 1
    weights[f"{STEM}.patch_embeddings.1.weight"][7] = row.flatten()
    torch.save({f"model.{key}": value for key, value in weights.items()}, path)
    ours = localizer()
    load_localizer(ours, path)
    kernel = ours.image_encoder.patch_embedding.proj.weight[7]
    assert kernel.sum().item() == pytest.approx(1)
    assert kernel[:, 12:, 5, 9].sum() > 0.7
    assert kernel.sum((0, 1))[5, 9].item() == pytest.approx(1)


def test_segvol_positions_keep_their_place(segvol: tuple[Path, dict[str, torch.Tensor]]) -> None:
    path, weights = segvol
    rows = weights[f"{STEM}.position_embeddings"]
    rows[0, :, 2] = 0
    rows[0, (5 * 16 + 3) * 16 + 11, 2] = 1
    torch.save({f"model.{key}": value for key, value in weights.items()}, path)
    ours = localizer()
    load_localizer(ours, path)
    grid = ours.image_encoder.patch_embedding.position_embeddings.weight[0, 2]
    assert grid.shape == (8, 32, 32)
    assert grid[5, 6:8, 22:24].min() > 0.5
    assert grid[[4, 6]].abs().max() == 0


def test_segvol_norm_is_averaged_and_new_instances_stay(
    segvol: tuple[Path, dict[str, torch.Tensor]],
) -> None:
    path, weights = segvol
    ours = localizer()
    before = ours.mask_decoder.mask_tokens.weight.clone()
    load_localizer(ours, path)
    name = "mask_decoder.output_upscaling.1.weight"
    torch.testing.assert_close(ours.state_dict()[name], weights[name].mean((1, 2, 3)))
    tokens = ours.mask_decoder.mask_tokens.weight
    assert torch.equal(tokens[:4], weights["mask_decoder.mask_tokens.weight"])
    assert torch.equal(tokens[4:], before[4:])


@pytest.mark.parametrize("instances", [False, True])
def test_aligned_networks_load_as_they_are(tmp_path: Path, instances: bool) -> None:
    """A training run's file has other state beside the weights, and older layers of MONAI."""
    torch.manual_seed(0)
    rows = {**SIZES, "mask_tokens": 1 + INSTANCES if instances else 4}
    of = shapes(rows, "localizer", "aligned", *(["instances"] if instances else []))
    weights = tensors(of)
    state = {f"sam.{key}": value for key, value in weights.items()} | {
        "sam.image_encoder.blocks.0.cross_attn.to_q.weight": torch.randn(32, 32),
        "sam.image_encoder.blocks.0.norm_cross_attn.bias": torch.randn(32),
        "clip.text_model.final_layer_norm.weight": torch.randn(8),
    }
    path = tmp_path / "aligned.ckpt"
    torch.save({"state_dict": state, "epoch": 3, "loops": {"fit": [1, 2]}}, path)
    ours = localizer()
    report = load_localizer(ours, path)
    assert report.fits
    assert not report.mismatched
    assert bool(report.absent) is not instances
    loaded = ours.state_dict()
    for key, value in weights.items():
        if key in loaded:
            assert torch.equal(loaded[key][: len(value)], value), key
    assert "clip.text_model.final_layer_norm.weight" in listed(report.ignored)


@pytest.fixture
def sam(tmp_path: Path) -> tuple[Path, dict[str, torch.Tensor]]:
    torch.manual_seed(0)
    weights = tensors(shapes(SIZES, "sam"))
    path = tmp_path / "sam_vit_b.pth"
    torch.save(weights, path)
    return path, weights


def test_sam_gives_its_image_encoder(sam: tuple[Path, dict[str, torch.Tensor]]) -> None:
    path, weights = sam
    ours = localizer(qkv_bias=True)
    report = load_localizer(ours, path)
    assert report.fits
    loaded = ours.image_encoder.state_dict()
    block = weights["image_encoder.blocks.1.attn.proj.weight"]
    assert torch.equal(loaded["blocks.1.attn.out_proj.weight"], block)
    assert torch.equal(
        loaded["blocks.0.attn.qkv.bias"], weights["image_encoder.blocks.0.attn.qkv.bias"]
    )
    ignored = listed(report.ignored)
    assert any("rel_pos_h" in key for key in ignored)
    assert any("neck" in key for key in ignored)
    absent = listed(report.absent)
    assert "image_encoder.norm.weight" in absent
    assert not any(key.startswith("image_encoder.blocks") for key in absent)


def test_sam_answers_an_even_color_as_before(sam: tuple[Path, dict[str, torch.Tensor]]) -> None:
    """SAM subtracts a mean and divides; ours is given 0 to 1, so the kernel does it."""
    path, weights = sam
    ours = localizer(qkv_bias=True)
    load_localizer(ours, path)
    color = torch.tensor([0.2, 0.9, 0.5]).view(3, 1, 1)
    mean = torch.tensor([123.675, 116.28, 103.53]).view(3, 1, 1)
    std = torch.tensor([58.395, 57.12, 57.375]).view(3, 1, 1)
    stem = "image_encoder.patch_embed.proj"
    normalized = ((255 * color - mean) / std).expand(3, 16, 16)
    there = conv2d(normalized[None], weights[f"{stem}.weight"], weights[f"{stem}.bias"]).flatten()
    for depth in (1, 8, 16):
        image = color.unsqueeze(1).expand(3, depth, 16, 16)
        here = ours.image_encoder.patch_embedding.proj(image, depth)
        torch.testing.assert_close(here[0], there, rtol=1e-4, atol=1e-4)


def test_sam_positions_repeat_along_depth(sam: tuple[Path, dict[str, torch.Tensor]]) -> None:
    path, weights = sam
    ours = localizer(qkv_bias=True)
    load_localizer(ours, path)
    grid = ours.image_encoder.patch_embedding.position_embeddings.weight[0]
    source = weights["image_encoder.pos_embed"][0]
    torch.testing.assert_close(grid[:, 0, 3, 20], source[6:8, 40:42].mean((0, 1)))
    assert torch.equal(grid[:, 0], grid[:, 7])


def test_sam_tells_its_sizes(sam: tuple[Path, dict[str, torch.Tensor]]) -> None:
    config = sam_localizer_config(Weights(sam[0], headers=True))
    assert config.hidden_size == SIZES["hidden"]
    assert config.num_hidden_layers == SIZES["blocks"]
    assert config.num_heads == SIZES["hidden"] // SIZES["head"]
    assert config.qkv_bias


def test_a_network_of_another_width_is_refused_and_changes_nothing(
    segvol: tuple[Path, dict[str, torch.Tensor]],
) -> None:
    ours = localizer(hidden_size=64)
    before = {key: value.clone() for key, value in ours.state_dict().items()}
    with pytest.raises(CheckpointError, match="do not fit"):
        load_localizer(ours, segvol[0])
    assert all(torch.equal(value, before[key]) for key, value in ours.state_dict().items())


def test_a_file_with_gaps_is_refused(segvol: tuple[Path, dict[str, torch.Tensor]]) -> None:
    path, weights = segvol
    del weights["image_encoder.blocks.1.norm1.weight"]
    torch.save({f"model.{key}": value for key, value in weights.items()}, path)
    with pytest.raises(CheckpointError, match=r"missing: image_encoder\.blocks\.1\.norm1\.weight"):
        load_localizer(localizer(), path)


def test_a_checkpoint_of_the_whole_model_is_refused(tmp_path: Path) -> None:
    weights = tensors(shapes(TABLES["small"]["cogvlm"], "cogvlm"))
    torch.save(weights, tmp_path / "cogvlm.bin")
    with pytest.raises(CheckpointError, match="is a checkpoint of CogVLM, not of SegVol"):
        load_localizer(localizer(), tmp_path / "cogvlm.bin")


def test_files_of_old_pytorch_load(segvol: tuple[Path, dict[str, torch.Tensor]]) -> None:
    path, weights = segvol
    content = {f"model.{key}": value for key, value in weights.items()}
    torch.save(content, path, _use_new_zipfile_serialization=False)
    assert load_localizer(localizer(), path).fits


def test_a_file_that_could_run_code_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "aligned.ckpt"
    torch.save({"state_dict": {}, "hyper_parameters": argparse.Namespace(lr=1)}, path)
    with pytest.raises(CheckpointError, match=r"argparse\.Namespace.*save its weights alone"):
        load_localizer(localizer(), path)
