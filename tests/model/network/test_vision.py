"""The vision transformer against a plain one, and packed images against single ones."""

from collections.abc import Mapping

import pytest
import torch
from peft import LoraConfig, get_peft_model
from torch import Tensor, nn
from torch.nn import functional as nnf
from transformers import PreTrainedModel

from model.config import VividMedConfig, preset
from model.data.inputs import ModelImage
from model.data.token_grid import plan
from model.network.vision import VisionTower

CONFIG = preset("tiny")
SHAPES = [(1, 100, 90), (40, 60, 60), (5, 64, 30), (1, 100, 90), (3, 17, 200)]


def image(shape: tuple[int, int, int]) -> ModelImage:
    grid = plan(
        shape,
        patch_size=CONFIG.vision.patch_size,
        pool=CONFIG.vision.pool,
        max_tokens=CONFIG.max_vision_tokens,
        max_depth_tokens=CONFIG.max_depth_tokens,
    )
    return ModelImage(torch.rand(3, *grid.size), grid)


@pytest.fixture
def tower() -> VisionTower:
    """A tower with every parameter drawn: fresh norms and biases would hide what is not used."""
    torch.manual_seed(0)
    tower = VisionTower(CONFIG).requires_grad_(False)
    for name, parameter in tower.named_parameters():
        drawn = torch.randn_like(parameter) / 12
        parameter.copy_(drawn + 1 if "norm" in name and "weight" in name else drawn)
    return tower


@pytest.fixture
def images() -> list[ModelImage]:
    torch.manual_seed(1)
    return [image(shape) for shape in SHAPES]


def plain_tower(weights: Mapping[str, Tensor], picture: ModelImage) -> Tensor:
    """The published architecture for one image, written out from the weights of a state dict."""

    def norm(values: Tensor, name: str, eps: float) -> Tensor:
        centered = values - values.mean(-1, keepdim=True)
        scaled = centered / (centered.square().mean(-1, keepdim=True) + eps).sqrt()
        return scaled * weights[f"{name}.weight"] + weights[f"{name}.bias"]

    def linear(values: Tensor, name: str) -> Tensor:
        return values @ weights[f"{name}.weight"].T + weights.get(f"{name}.bias", torch.zeros(()))

    hidden = plain_embedding(weights, picture)
    for number in range(2):
        layer = f"transformer.layers.{number}"
        qkv = linear(hidden, f"{layer}.attention.query_key_value").reshape(-1, 3, 4, 16)
        scores = torch.einsum("qhd,khd->hqk", qkv[:, 0], qkv[:, 1]) / 16**0.5
        mixed = torch.einsum("hqk,khd->qhd", scores.softmax(-1), qkv[:, 2]).reshape(-1, 64)
        mixed = linear(mixed, f"{layer}.attention.dense")
        hidden = hidden + norm(mixed, f"{layer}.input_layernorm", 1e-6)
        widened = linear(hidden, f"{layer}.mlp.fc1")
        widened = widened * (1 + torch.erf(widened / 2**0.5)) / 2
        added = linear(widened, f"{layer}.mlp.fc2")
        hidden = hidden + norm(added, f"{layer}.post_attention_layernorm", 1e-6)

    grid = picture.grid
    volume = hidden[1:].T.reshape(1, 64, *grid.patches)
    tokens = nnf.max_pool3d(volume, grid.pool)[0].flatten(1).T
    tokens = norm(linear(tokens, "linear_proj.linear_proj"), "linear_proj.norm1", 1e-5)
    tokens = tokens * (1 + torch.erf(tokens / 2**0.5)) / 2
    gate = linear(tokens, "linear_proj.gate_proj")
    tokens = gate * gate.sigmoid() * linear(tokens, "linear_proj.dense_h_to_4h")
    tokens = linear(tokens, "linear_proj.dense_4h_to_h")
    return torch.cat([weights["boi"][0], tokens, weights["eoi"][0]])


def plain_embedding(weights: Mapping[str, Tensor], picture: ModelImage) -> Tensor:
    """Class token and patches with their positions, one patch at a time."""
    mean = torch.tensor([0.48145466, 0.4578275, 0.40821073]).reshape(3, 1, 1, 1)
    std = torch.tensor([0.26862954, 0.26130258, 0.27577711]).reshape(3, 1, 1, 1)
    pixels = (picture.pixels - mean) / std
    kernel, bias = (weights[f"patch_embedding.proj.{name}"] for name in ("weight", "bias"))
    thickness = picture.grid.patch[0]
    kernel = torch.stack([part.sum(2) for part in kernel.split(8 // thickness, dim=2)], dim=2)
    depth, height, width = picture.grid.patches
    patches = torch.stack(
        [
            (kernel * pixels[:, z : z + thickness, y : y + 8, x : x + 8]).sum((1, 2, 3, 4)) + bias
            for z in range(0, depth * thickness, thickness)
            for y in range(0, height * 8, 8)
            for x in range(0, width * 8, 8)
        ]
    )
    learned = weights["patch_embedding.position_embedding.weight"]
    learned_depth, learned_height, learned_width = learned.shape[2:]
    smaller = (min(learned_depth, depth), min(learned_height, height), min(learned_width, width))
    positions = nnf.interpolate(
        nnf.adaptive_avg_pool3d(learned, smaller), (depth, height, width), mode="trilinear"
    )
    class_token = (
        weights["patch_embedding.cls_embedding.weight"]
        + weights["patch_embedding.cls_pos_embed.weight"]
    )
    return torch.cat([class_token, patches + positions[0].flatten(1).T])


def test_agrees_with_a_plain_implementation(tower: VisionTower, images: list[ModelImage]) -> None:
    weights = tower.state_dict()
    for embedded, picture in zip(tower(images), images, strict=True):
        assert embedded.std() > 0.1
        torch.testing.assert_close(embedded, plain_tower(weights, picture), atol=1e-5, rtol=1e-5)


def test_embeds_patches_like_a_plain_implementation(
    tower: VisionTower, images: list[ModelImage]
) -> None:
    """On its own, because one class token among hundreds of patches hardly shows in the end."""
    plain = [plain_embedding(tower.state_dict(), picture) for picture in images]
    embedded = tower.patch_embedding(images)
    torch.testing.assert_close(embedded, torch.cat(plain), atol=1e-5, rtol=1e-5)


def test_an_image_takes_its_tokens_and_two_markers(
    tower: VisionTower, images: list[ModelImage]
) -> None:
    assert {picture.grid.patch[0] for picture in images} == {1, 4}
    for embedded, picture in zip(tower(images), images, strict=True):
        assert embedded.shape == (picture.grid.num_tokens + 2, CONFIG.hidden_size)
        assert torch.equal(embedded[:1], tower.boi[0])
        assert torch.equal(embedded[-1:], tower.eoi[0])


def test_no_images_have_no_tokens(tower: VisionTower) -> None:
    assert tower([]) == []


def test_packing_equals_one_by_one(tower: VisionTower, images: list[ModelImage]) -> None:
    for together, picture in zip(tower(images), images, strict=True):
        torch.testing.assert_close(together, tower([picture])[0], atol=1e-5, rtol=1e-5)


def test_permuting_the_images_permutes_the_outputs(
    tower: VisionTower, images: list[ModelImage]
) -> None:
    order = [3, 0, 4, 2, 1]
    shuffled = tower([images[i] for i in order])
    straight = tower(images)
    for i, embedded in zip(order, shuffled, strict=True):
        torch.testing.assert_close(embedded, straight[i], atol=1e-5, rtol=1e-5)


def test_half_precision_stays_near(tower: VisionTower, images: list[ModelImage]) -> None:
    exact = torch.cat(tower(images))
    rough = torch.cat(tower.bfloat16()(images))
    assert rough.dtype == torch.bfloat16
    assert nnf.cosine_similarity(rough.float(), exact).min() > 0.99


class Host(PreTrainedModel):
    """The least that a model of transformers needs around the tower."""

    config_class = VividMedConfig
    supports_gradient_checkpointing = True

    def __init__(self, config: VividMedConfig) -> None:
        super().__init__(config)
        self.vision = VisionTower(config)
        self.post_init()


def gradients(host: Host, images: list[ModelImage]) -> tuple[dict[str, Tensor], int]:
    """Return every parameter's gradient and how often the first layer's attention ran."""
    runs: list[nn.Module] = []
    attention = host.get_submodule("vision.transformer.layers.0.attention")
    hook = attention.register_forward_hook(lambda module, *_: runs.append(module))
    host.zero_grad()
    torch.cat(host.vision(images)).square().sum().backward()
    hook.remove()
    grads = {name: of.grad for name, of in host.named_parameters() if of.grad is not None}
    return grads, len(runs)


def test_checkpointing_recomputes_and_gives_the_same_gradients(images: list[ModelImage]) -> None:
    torch.manual_seed(0)
    host = Host(CONFIG).train()
    kept, runs = gradients(host, images)
    assert runs == 1
    assert len(kept) == len(list(host.parameters()))
    host.activation_checkpointing_enable()
    recomputed, runs = gradients(host, images)
    assert runs == 2
    for name, grad in kept.items():
        torch.testing.assert_close(recomputed[name], grad)


def test_adapters_train_and_keep_what_is_not_linear(images: list[ModelImage]) -> None:
    torch.manual_seed(0)
    tower = VisionTower(CONFIG)
    whole = [
        name
        for name, module in tower.named_modules()
        if not isinstance(module, nn.Linear) and list(module.parameters(recurse=False)) and name
    ]
    before = torch.cat(tower(images)).detach()
    tuned = get_peft_model(
        tower, LoraConfig(r=2, target_modules="all-linear", modules_to_save=whole)
    )
    torch.testing.assert_close(torch.cat(tuned(images)), before)
    torch.cat(tuned(images)).square().sum().backward()
    trained = {
        name.replace(".modules_to_save.default", "")
        for name, parameter in tuned.named_parameters()
        if parameter.grad is not None
    }
    embedding = "base_model.model.patch_embedding"
    for name in ("proj", "cls_embedding", "cls_pos_embed", "position_embedding"):
        assert f"{embedding}.{name}.weight" in trained
    assert not any("boi" in name or "eoi" in name for name in trained)


def test_the_paper_s_size() -> None:
    with torch.device("meta"):
        tower = VisionTower(preset("paper"))
    layer = sum(parameter.numel() for parameter in tower.transformer.layers[0].parameters())
    assert layer == 67_926_784
    shapes = {name: tuple(of.shape) for name, of in tower.patch_embedding.named_parameters()}
    assert shapes == {
        "proj.weight": (1792, 3, 16, 16, 16),
        "proj.bias": (1792,),
        "cls_embedding.weight": (1, 1792),
        "cls_pos_embed.weight": (1, 1792),
        "position_embedding.weight": (1, 1792, 8, 32, 32),
    }
