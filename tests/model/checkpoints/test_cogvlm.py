"""The published CogVLM becomes our model."""

from __future__ import annotations

import json
import weakref
from pathlib import Path

import pytest
import torch
from torch import Tensor
from torch.nn.functional import conv2d

from model.checkpoints.cogvlm import cogvlm_config, load_cogvlm
from model.checkpoints.weights import CheckpointError, Weights
from model.config import LocalizerConfig, VividMedConfig
from model.network.localization.localizer import Localizer
from model.network.vision import CLIP_MEAN
from model.network.vividmed import VividMedForCausalLM
from tests.model.checkpoints.released import TABLES, shapes, tensors, write_cogvlm

SIZES = TABLES["small"]["cogvlm"]
EMBEDDING = "model.vision.patch_embedding"


def config(folder: Path) -> VividMedConfig:
    """The folder's sizes, with a localizer that a test can afford."""
    ours = cogvlm_config(folder)
    ours.localizer_config = LocalizerConfig(
        hidden_size=32, intermediate_size=48, num_hidden_layers=1, num_heads=4, decoder_heads=4
    )
    return ours


@pytest.fixture(scope="module")
def weights() -> dict[str, Tensor]:
    torch.manual_seed(0)
    return tensors(shapes(SIZES, "cogvlm"))


@pytest.fixture(scope="module")
def folder(weights: dict[str, Tensor], tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("cogvlm-chat-hf")
    write_cogvlm(path, weights)
    return path


@pytest.fixture(scope="module")
def model(folder: Path) -> VividMedForCausalLM:
    return load_cogvlm(folder, config(folder), dtype=torch.float32)[0]


def test_sizes_are_read_from_the_folder(folder: Path) -> None:
    ours = cogvlm_config(folder)
    assert ours.rms_norm_eps == 3e-5
    assert ours.vision.layer_norm_eps == 2e-6
    assert (ours.hidden_size, ours.num_hidden_layers, ours.vocab_size) == (32, 2, 48)
    assert (ours.vision.hidden_size, ours.vision.num_heads) == (16, 2)
    assert ours.vision.patch_size == 16
    special = (ours.sys_token_id, ours.usr_token_id, ours.grd_token_id, ours.ngrd_token_id)
    assert special == (40, 41, 42, 43)
    assert (ours.bop_token_id, ours.eop_token_id, ours.eonp_token_id) == (44, 45, 47)


def test_every_tensor_has_a_place(folder: Path, weights: dict[str, Tensor]) -> None:
    _, report = load_cogvlm(folder, config(folder))
    assert report.fits
    assert report.layout == "CogVLM"
    assert report.tensors == len(weights)
    ignored = [key for keys in report.ignored.values() for key in keys]
    assert len(ignored) == SIZES["layers"]
    assert all(key.endswith("rotary_emb.inv_freq") for key in ignored)
    fresh = {key.split(".")[0] for keys in report.absent.values() for key in keys}
    assert fresh == {"sam", "vg_proj"}


def test_tensors_that_need_no_change_are_kept(
    model: VividMedForCausalLM, weights: dict[str, Tensor]
) -> None:
    state = model.state_dict()
    same = [key for key in weights if key in state and state[key].shape == weights[key].shape]
    assert len(same) == len(weights) - 5 - SIZES["layers"]
    assert all(torch.equal(state[key], weights[key]) for key in same)
    cls = state[f"{EMBEDDING}.cls_embedding.weight"]
    assert torch.equal(cls, weights[f"{EMBEDDING}.cls_embedding"])


def test_new_tokens_are_the_mean_of_the_old(
    model: VividMedForCausalLM, weights: dict[str, Tensor]
) -> None:
    for key in ("model.embed_tokens.weight", "lm_head.weight"):
        ours, theirs = model.state_dict()[key], weights[key]
        assert torch.equal(ours[:40], theirs)
        torch.testing.assert_close(ours[40:], theirs.mean(0).expand(8, -1))


@pytest.mark.parametrize("patch_depth", [1, 2, 4, 8, 16])
def test_an_even_image_is_embedded_as_before(
    model: VividMedForCausalLM, weights: dict[str, Tensor], patch_depth: int
) -> None:
    """Kernels of 14 × 14 there, of 16 × 16 × 16 here: the same response to an even color."""
    kernel, bias = weights[f"{EMBEDDING}.proj.weight"], weights[f"{EMBEDDING}.proj.bias"]
    color = torch.tensor([0.3, -1.1, 0.8]).view(len(CLIP_MEAN), 1, 1)
    there = conv2d(color.expand(3, 14, 14)[None], kernel, bias).flatten()
    image = color.unsqueeze(1).expand(3, patch_depth, 16, 16)
    here = model.model.vision.patch_embedding.proj(image, patch_depth)[0]
    # Bicubic growth moves a little of what lies at a kernel's edge.
    torch.testing.assert_close(here, there, rtol=0.05, atol=0.05 * there.abs().max().item())


def test_positions_keep_their_place(folder: Path, weights: dict[str, Tensor]) -> None:
    rows = weights[f"{EMBEDDING}.position_embedding.weight"]
    model, _ = load_cogvlm(folder, config(folder), dtype=torch.float32)
    embedding = model.model.vision.patch_embedding
    assert torch.equal(embedding.cls_pos_embed.weight, rows[:1])
    grid = embedding.position_embedding.weight[0]
    assert grid.shape == (16, 8, 32, 32)
    assert torch.equal(grid[:, 0], grid[:, 7])
    theirs = rows[1:].view(35, 35, 16)
    torch.testing.assert_close(grid[:, 0, 0, 0], theirs[:2, :2].mean((0, 1)))
    torch.testing.assert_close(grid[:, 0, 31, 0], theirs[33:, :2].mean((0, 1)))


def test_the_localizer_begins_as_pytorch_draws_it(model: VividMedForCausalLM) -> None:
    ours = model.config.localizer
    fresh = Localizer(ours, num_instances=ours.num_instances, boxes=True).state_dict()
    for key, value in model.sam.state_dict().items():
        if value.numel() > 100:
            assert value.std().item() == pytest.approx(fresh[key].std().item(), rel=0.3), key


def test_precision_is_that_of_each_part(folder: Path) -> None:
    model, _ = load_cogvlm(folder, config(folder))
    for key, value in model.state_dict().items():
        localizing = key.startswith(("sam.", "vg_proj."))
        assert value.dtype == (torch.float32 if localizing else torch.bfloat16), key


def test_a_loaded_model_saves_and_loads(folder: Path, tmp_path: Path) -> None:
    model, _ = load_cogvlm(folder, config(folder))
    model.save_pretrained(tmp_path)
    again = VividMedForCausalLM.from_pretrained(tmp_path).state_dict()
    for key, value in model.state_dict().items():
        assert again[key].dtype == value.dtype
        assert torch.equal(again[key], value), key


def test_tensors_are_let_go_one_by_one(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A second copy of the model is never in memory."""
    read = Weights.__getitem__
    seen: list[weakref.ref[Tensor]] = []
    alive: list[int] = []

    def watch(weights: Weights, key: str) -> Tensor:
        tensor = read(weights, key)
        alive.append(sum(of() is not None for of in seen))
        seen.append(weakref.ref(tensor))
        return tensor

    monkeypatch.setattr(Weights, "__getitem__", watch)
    load_cogvlm(folder, config(folder))
    assert len(seen) > 100
    assert max(alive) <= 1


def test_pytorch_files_with_an_index_load(weights: dict[str, Tensor], tmp_path: Path) -> None:
    write_cogvlm(tmp_path, weights)
    index = json.loads((tmp_path / "model.safetensors.index.json").read_text())
    for name in set(index["weight_map"].values()):
        (tmp_path / name).unlink()
    (tmp_path / "model.safetensors.index.json").unlink()
    halves = {"a.bin": list(weights)[::2], "b.bin": list(weights)[1::2]}
    for name, keys in halves.items():
        torch.save({key: weights[key] for key in keys}, tmp_path / name)
    weight_map = {key: name for name, keys in halves.items() for key in keys}
    text = json.dumps({"metadata": {}, "weight_map": weight_map})
    (tmp_path / "pytorch_model.bin.index.json").write_text(text)
    model, report = load_cogvlm(tmp_path, config(tmp_path), dtype=torch.float32)
    assert report.fits
    assert torch.equal(model.model.norm.weight, weights["model.norm.weight"])


def test_a_gap_is_refused(weights: dict[str, Tensor], tmp_path: Path) -> None:
    write_cogvlm(tmp_path, {key: weights[key] for key in weights if key != "model.norm.weight"})
    with pytest.raises(CheckpointError, match=r"missing: model\.norm\.weight"):
        load_cogvlm(tmp_path, config(tmp_path))


@pytest.mark.parametrize("text", [None, "", "{}", "[]", '{"hidden_size": 8}'])
def test_a_folder_without_its_configuration_is_refused(tmp_path: Path, text: str | None) -> None:
    if text is not None:
        (tmp_path / "config.json").write_text(text)
    with pytest.raises(CheckpointError, match=r"config\.json"):
        load_cogvlm(tmp_path)
