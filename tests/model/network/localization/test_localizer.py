from functools import partial

import pytest
import torch
from torch import Tensor
from torch.utils.checkpoint import checkpoint
from transformers.modeling_layers import GradientCheckpointingLayer

from model.config import LocalizerConfig, preset
from model.data.inputs import ModelImage, PhraseTarget
from model.data.token_grid import TokenGrid
from model.network.localization.localizer import RELEASED_BUT_UNUSED, Localization, Localizer
from model.network.localization.losses import localization_loss

CONFIG = LocalizerConfig(
    hidden_size=32,
    intermediate_size=48,
    num_hidden_layers=2,
    num_heads=4,
    patch_size=4,
    position_grid=(2, 4, 4),
    decoder_heads=4,
    decoder_intermediate_size=48,
)


@pytest.fixture
def network() -> Localizer:
    torch.manual_seed(0)
    return Localizer(CONFIG, num_instances=5, boxes=True)


def image(size: tuple[int, int, int], patch_depth: int) -> ModelImage:
    return ModelImage(torch.rand(3, *size), TokenGrid(size, size, (patch_depth, 4, 4), (1, 1, 1)))


def mixed_batch() -> tuple[list[ModelImage], list[Tensor]]:
    images = [image((1, 16, 24), 1), image((8, 8, 12), 4), image((4, 12, 8), 2)]
    return images, [torch.randn(count, 32) for count in (3, 1, 2)]


def assert_same(found: Localization, expected: Localization) -> None:
    for name in ("mask_logits", "boxes", "presence_logits"):
        torch.testing.assert_close(
            getattr(found, name), getattr(expected, name), atol=1e-5, rtol=1e-4
        )


@torch.no_grad()
def test_every_phrase_gets_a_mask_of_its_image_and_boxes_inside_it(network: Localizer) -> None:
    images, prompts = mixed_batch()

    for of, phrases, found in zip(images, prompts, network(images, prompts), strict=True):
        assert found.mask_logits.shape == (len(phrases), *of.grid.size)
        assert found.boxes.shape == (len(phrases), 5, 6)
        assert found.presence_logits.shape == (len(phrases), 5)
        assert ((found.boxes > 0) & (found.boxes < 1)).all()


@torch.no_grad()
@pytest.mark.parametrize(("head", "layers"), [("box_head", (0, 2, 4)), ("disc_head", (0, 2))])
def test_heads_are_the_released_ones(
    network: Localizer, head: str, layers: tuple[int, ...]
) -> None:
    """Linear layers with a ReLU between; boxes are sigmoids, in the order of the last layer."""
    images, prompts = mixed_batch()
    instances: list[Tensor] = []
    network.get_submodule(head).register_forward_hook(lambda _, given, __: instances.extend(given))
    weights = network.get_submodule(head).state_dict()

    for found, values in zip(network(images, prompts), instances, strict=True):
        for layer in layers:
            values = values.clamp(min=0) if layer else values  # noqa: PLW2901
            values = values @ weights[f"{layer}.weight"].T + weights[f"{layer}.bias"]  # noqa: PLW2901
        if head == "box_head":
            torch.testing.assert_close(found.boxes, 1 / (1 + (-values).exp()))
        else:
            torch.testing.assert_close(found.presence_logits, values.squeeze(-1))


@torch.no_grad()
def test_images_of_any_size_together_are_the_same_as_one_by_one(network: Localizer) -> None:
    images, prompts = mixed_batch()

    together = network(images, prompts)

    for of, phrases, found in zip(images, prompts, together, strict=True):
        [alone] = network([of], [phrases])
        assert_same(found, alone)


@torch.no_grad()
def test_other_phrases_of_an_image_do_not_change_a_phrase_s_result(network: Localizer) -> None:
    images, prompts = mixed_batch()
    order = torch.tensor([2, 0, 1])
    expected = network(images, prompts)[0]

    shuffled, one = network([images[0]] * 2, [prompts[0][order], prompts[0][1:2]])

    assert_same(
        shuffled,
        Localization(
            expected.mask_logits[order], expected.boxes[order], expected.presence_logits[order]
        ),
    )
    assert_same(
        one,
        Localization(expected.mask_logits[1:2], expected.boxes[1:2], expected.presence_logits[1:2]),
    )


@torch.no_grad()
def test_an_image_without_phrases_costs_nothing_and_gives_nothing(network: Localizer) -> None:
    images, prompts = mixed_batch()
    prompts[1] = prompts[1][:0]
    encoded: list[int] = []
    network.image_encoder.register_forward_pre_hook(lambda _, given: encoded.append(len(given[0])))

    first, empty, _ = network(images, prompts)
    [nothing] = network(images[:1], [torch.zeros(0, 32)])

    assert encoded == [2, 0]
    assert len(first.mask_logits) == 3
    assert empty.mask_logits.shape == (0, 8, 8, 12)
    assert (empty.boxes.shape, empty.presence_logits.shape) == ((0, 5, 6), (0, 5))
    assert nothing.mask_logits.shape == (0, 1, 16, 24)


@torch.no_grad()
def test_what_is_not_asked_for_is_not_computed(network: Localizer) -> None:
    images, prompts = mixed_batch()
    ran: list[str] = []
    for name in ("mask_decoder.output_upscaling", "box_head", "disc_head"):
        network.get_submodule(name).register_forward_hook(
            lambda *_, name=name: ran.append(name.split(".")[-1])
        )

    [boxes] = network(images[:1], prompts[:1], masks=False)
    assert ran == ["disc_head", "box_head"]
    assert boxes.mask_logits is None

    ran.clear()
    [masks] = network(images[:1], prompts[:1], boxes=False)
    assert ran == ["output_upscaling"]
    assert masks.boxes is None
    assert masks.presence_logits is None


@torch.no_grad()
def test_a_network_without_box_heads_gives_masks() -> None:
    images, prompts = mixed_batch()

    [found] = Localizer(CONFIG, num_instances=3, boxes=False)(images[:1], prompts[:1])

    assert found.mask_logits is not None
    assert found.boxes is None


def test_a_loss_reaches_every_parameter(network: Localizer) -> None:
    images, prompts = mixed_batch()
    [found] = network(images[:1], prompts[:1])
    target = PhraseTarget(mask=torch.rand(1, 16, 24) > 0.5, boxes=torch.rand(2, 6))

    localization_loss(found, [target] * 3).total.backward()

    assert [name for name, of in network.named_parameters() if of.grad is None] == []


def test_gradient_checkpointing_changes_no_gradient(network: Localizer) -> None:
    images, prompts = mixed_batch()
    gradients = []
    for checkpointed in (False, True):
        for module in network.modules():
            if isinstance(module, GradientCheckpointingLayer):
                module.gradient_checkpointing = checkpointed
                module._gradient_checkpointing_func = partial(checkpoint, use_reentrant=False)
        network.zero_grad()
        sum(found.mask_logits.mean() for found in network(images, prompts)).backward()
        gradient = network.image_encoder.patch_embedding.proj.weight.grad
        assert gradient is not None
        gradients.append(gradient.clone())

    torch.testing.assert_close(*gradients)
    assert gradients[0].abs().max() > 0


def released_shapes(instances: int) -> dict[str, tuple[int, ...]]:
    """Names and shapes of the released networks, less what nothing here uses."""
    shapes: dict[str, tuple[int, ...]] = {
        "image_encoder.patch_embedding.proj.weight": (768, 3, 16, 16, 16),
        "image_encoder.patch_embedding.proj.bias": (768,),
        "image_encoder.patch_embedding.position_embeddings.weight": (1, 768, 8, 32, 32),
        "prompt_encoder.pe_layer.positional_encoding_gaussian_matrix": (3, 384),
        "prompt_encoder.no_mask_embed.weight": (1, 768),
        "mask_decoder.iou_token.weight": (1, 768),
        "mask_decoder.mask_tokens.weight": (instances + 1, 768),
        "mask_decoder.output_upscaling.0.weight": (768, 192, 2, 2, 2),
        "mask_decoder.output_upscaling.0.bias": (192,),
        "mask_decoder.output_upscaling.3.weight": (192, 96, 2, 2, 2),
        "mask_decoder.output_upscaling.3.bias": (96,),
    }

    def linear(name: str, wide: int, narrow: int, *, bias: bool = True) -> None:
        shapes[f"{name}.weight"] = (narrow, wide)
        if bias:
            shapes[f"{name}.bias"] = (narrow,)

    def norm(name: str, channels: int = 768) -> None:
        shapes.update({f"{name}.weight": (channels,), f"{name}.bias": (channels,)})

    def attention(name: str, inner: int) -> None:
        for projection in "qkv":
            linear(f"{name}.{projection}_proj", 768, inner)
        linear(f"{name}.out_proj", inner, 768)

    for number in range(12):
        block = f"image_encoder.blocks.{number}"
        norm(f"{block}.norm1")
        norm(f"{block}.norm2")
        linear(f"{block}.attn.qkv", 768, 2304, bias=False)
        linear(f"{block}.attn.out_proj", 768, 768)
        linear(f"{block}.mlp.linear1", 768, 3072)
        linear(f"{block}.mlp.linear2", 3072, 768)
    norm("image_encoder.norm")
    for number in range(2):
        layer = f"mask_decoder.transformer.layers.{number}"
        attention(f"{layer}.self_attn", 768)
        attention(f"{layer}.cross_attn_token_to_image", 384)
        attention(f"{layer}.cross_attn_image_to_token", 384)
        for of in range(1, 5):
            norm(f"{layer}.norm{of}")
        linear(f"{layer}.mlp.lin1", 768, 2048)
        linear(f"{layer}.mlp.lin2", 2048, 768)
    attention("mask_decoder.transformer.final_attn_token_to_image", 384)
    norm("mask_decoder.transformer.norm_final_attn")
    norm("mask_decoder.output_upscaling.1", 192)
    for number, narrow in enumerate((768, 768, 96)):
        linear(f"mask_decoder.output_hypernetworks_mlps.0.layers.{number}", 768, narrow)
    linear("mask_decoder.txt_align_upscaled_embedding", 768, 96)
    return shapes


@pytest.mark.parametrize(("instances", "boxes"), [(3, False), (6, True)])
def test_parameters_have_the_released_names_and_shapes(instances: int, boxes: bool) -> None:
    heads: dict[str, tuple[int, ...]] = {}
    if boxes:
        for head, widths in (("box_head", (768, 768, 6)), ("disc_head", (768, 1))):
            for number, narrow in enumerate(widths):
                heads[f"{head}.{2 * number}.weight"] = (narrow, 768)
                heads[f"{head}.{2 * number}.bias"] = (narrow,)
    with torch.device("meta"):
        network = Localizer(preset("paper").localizer, num_instances=instances, boxes=boxes)

    found = {name: tuple(of.shape) for name, of in network.state_dict().items()}

    assert found == released_shapes(instances) | heads
    assert not any(name.startswith(tuple(RELEASED_BUT_UNUSED)) for name in found)


@torch.no_grad()
def test_an_image_that_samples_share_is_looked_at_once(network: Localizer) -> None:
    seen: list[int] = []
    network.image_encoder.register_forward_hook(lambda _, given, __: seen.append(len(given[0])))
    shared = image((4, 12, 8), 2)
    prompts = [torch.randn(2, 32), torch.randn(1, 32)]

    together = network([shared, shared], prompts)

    assert seen == [1]
    for phrases, found in zip(prompts, together, strict=True):
        assert_same(found, network([shared], [phrases])[0])
