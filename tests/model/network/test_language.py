"""The decoder: Llama where there is no image, experts where there is one, rows as packed."""

from typing import Any

import pytest
import torch
from torch import Tensor
from transformers import LlamaConfig, LlamaForCausalLM

from model.network import language
from model.network.attention import packed_attention
from model.network.language import MLP, Context, Routing, VisionExpertMLP, VividMedModel
from tests.model.examples import samples, tiny

TOLERANCE: dict[str, Any] = {"atol": 1e-4, "rtol": 1e-4}


@pytest.fixture(scope="module")
def decoder():
    torch.manual_seed(0)
    return VividMedModel(tiny()).eval()


def widened(model):
    """Weights far enough from zero for a mistake to show."""
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.copy_(torch.randn_like(parameter) * 0.15 + (parameter.dim() == 1))
    return model


def packed(of):
    texts = [one.text for one in of]
    names = {"input_ids": "input_ids", "token_type_ids": "token_types"}
    rows = {
        name: torch.cat([getattr(text, field) for text in texts]).unsqueeze(0)
        for name, field in names.items()
    }
    return {
        **rows,
        "lengths": [len(text.input_ids) for text in texts],
        "images": [one.image for one in of],
    }


def padded(of):
    """One sample a row, padding on the left."""
    longest = max(len(one.text.input_ids) for one in of)
    rows: dict[str, list[Tensor]] = {
        "input_ids": [],
        "token_type_ids": [],
        "attention_mask": [],
    }
    for one in of:
        blank = torch.zeros(longest - len(one.text.input_ids), dtype=torch.long)
        rows["input_ids"].append(torch.cat([blank, one.text.input_ids]))
        rows["token_type_ids"].append(torch.cat([blank, one.text.token_types]))
        rows["attention_mask"].append(torch.cat([blank, torch.ones_like(one.text.input_ids)]))
    stacked = {name: torch.stack(of_name) for name, of_name in rows.items()}
    return {**stacked, "images": [one.image for one in of]}


@pytest.fixture(scope="module")
def llama(decoder):
    """Transformers' Llama with the weights of the language expert."""
    config = decoder.config
    widened(decoder)
    names = ["vocab_size", "hidden_size", "intermediate_size", "num_hidden_layers"]
    names += ["num_attention_heads", "rms_norm_eps", "rope_theta"]
    reference = LlamaForCausalLM(LlamaConfig(**{name: getattr(config, name) for name in names}))
    weights = {
        "embed_tokens.weight": decoder.embed_tokens.weight,
        "norm.weight": decoder.norm.weight,
    }
    for number, layer in enumerate(decoder.layers):
        at = f"layers.{number}"
        mixed = layer.self_attn.language_expert_query_key_value.weight.chunk(3)
        for name, part in zip("qkv", mixed, strict=True):
            weights[f"{at}.self_attn.{name}_proj.weight"] = part
        weights[f"{at}.self_attn.o_proj.weight"] = layer.self_attn.language_expert_dense.weight
        for name, part in layer.mlp.language_mlp.named_parameters():
            weights[f"{at}.mlp.{name}"] = part
        for name in ("input_layernorm", "post_attention_layernorm"):
            weights[f"{at}.{name}.weight"] = getattr(layer, name).weight
    reference.model.load_state_dict(weights)
    return reference.model.eval()


@torch.no_grad()
def test_text_alone_is_llama(decoder, llama):
    ids = torch.randint(12, 300, (1, 40))
    theirs = llama(ids).last_hidden_state
    torch.testing.assert_close(decoder(ids).last_hidden_state, theirs, **TOLERANCE)
    torch.testing.assert_close(decoder(ids, lengths=[40]).last_hidden_state, theirs, **TOLERANCE)


@torch.no_grad()
def test_packed_and_padded_text_is_llama(decoder, llama):
    texts = [torch.randint(12, 300, (length,)) for length in (17, 5, 30)]
    theirs = [llama(text.unsqueeze(0)).last_hidden_state[0] for text in texts]
    together = decoder(torch.cat(texts).unsqueeze(0), lengths=[17, 5, 30]).last_hidden_state
    torch.testing.assert_close(together[0], torch.cat(theirs), **TOLERANCE)
    ids, mask = torch.zeros(3, 30, dtype=torch.long), torch.zeros(3, 30, dtype=torch.long)
    for row, text in enumerate(texts):
        ids[row, -len(text) :], mask[row, -len(text) :] = text, 1
    rows = decoder(ids, attention_mask=mask).last_hidden_state
    for row, of_text in zip(rows, theirs, strict=True):
        torch.testing.assert_close(row[-len(of_text) :], of_text, **TOLERANCE)


@torch.no_grad()
def test_packed_padded_and_single_samples_agree(decoder):
    widened(decoder)
    one_by_one = [decoder(**padded([one])).last_hidden_state[0] for one in samples()]
    together = decoder(**packed(samples())).last_hidden_state[0]
    torch.testing.assert_close(together, torch.cat(one_by_one), **TOLERANCE)
    rows = decoder(**padded(samples())).last_hidden_state
    for row, alone in zip(rows, one_by_one, strict=True):
        torch.testing.assert_close(row[-len(alone) :], alone, **TOLERANCE)


@torch.no_grad()
def test_permuting_the_batch_permutes_the_states(decoder):
    lengths = [len(one.text.input_ids) for one in samples()]
    first, second, third = decoder(**packed(samples())).last_hidden_state[0].split(lengths)
    turned = decoder(**packed(samples()[::-1])).last_hidden_state[0]
    torch.testing.assert_close(turned, torch.cat([third, second, first]), **TOLERANCE)


def test_the_visual_expert_takes_boi_and_the_image_but_not_eoi():
    types = torch.tensor([[0, 1, 1, 1, 1, 0, 0], [0, 0, 1, 1, 1, 0, 0]])
    routing = Routing.of(types)
    assert routing is not None
    assert routing.order[routing.language :].tolist() == [1, 2, 3, 9, 10]
    assert torch.equal(routing.order[routing.inverse], torch.arange(14))
    assert Routing.of(torch.zeros(2, 5, dtype=torch.long)) is None


@pytest.mark.parametrize("expert", ["language", "vision"])
def test_an_expert_changes_its_own_tokens_only(expert):
    torch.manual_seed(0)
    layer = VisionExpertMLP(tiny())
    types = torch.tensor([[0, 1, 1, 1, 1, 0, 0]])
    no_rotation = (torch.empty(0), torch.empty(0))
    context = Context(no_rotation, Routing.of(types), None, None, None)
    hidden = torch.randn(1, 7, tiny().hidden_size)
    before = layer(hidden, context)
    seen = torch.tensor([False, True, True, True, False, False, False])
    for name, of, mask in (
        ("language", layer.language_mlp, ~seen),
        ("vision", layer.vision_mlp, seen),
    ):
        torch.testing.assert_close(before[0, mask], of(hidden[0, mask]))
        if name == expert:
            of.load_state_dict(MLP(tiny()).state_dict())
    changed = (layer(hidden, context) != before).any(-1)[0]
    assert torch.equal(changed, seen if expert == "vision" else ~seen)


@torch.no_grad()
def test_what_the_visual_expert_learns_reaches_the_text_behind_it(decoder):
    text = packed(samples()[:1])
    before = decoder(**text).last_hidden_state[0]
    kept = decoder.layers[0].mlp.vision_mlp.down_proj.weight.clone()
    decoder.layers[0].mlp.vision_mlp.down_proj.weight.mul_(2)
    changed = (decoder(**text).last_hidden_state[0] != before).any(-1)
    decoder.layers[0].mlp.vision_mlp.down_proj.weight.copy_(kept)
    assert changed.tolist() == [False] + [True] * (len(changed) - 1)


@torch.no_grad()
def test_a_cache_changes_nothing(decoder):
    text = padded(samples())
    whole = decoder(**text).last_hidden_state
    seen = int(text["token_type_ids"].nonzero()[:, 1].max()) + 1
    assert whole.shape[1] - seen > 10
    numbers = decoder._position_ids(
        text["input_ids"], text["token_type_ids"], text["attention_mask"], None
    )
    first = decoder(
        text["input_ids"][:, :seen],
        attention_mask=text["attention_mask"][:, :seen],
        token_type_ids=text["token_type_ids"][:, :seen],
        position_ids=numbers[:, :seen],
        images=text["images"],
        use_cache=True,
    )
    parts = [first.last_hidden_state]
    for at in range(seen, whole.shape[1]):
        step = decoder(
            text["input_ids"][:, at : at + 1],
            attention_mask=text["attention_mask"][:, : at + 1],
            position_ids=numbers[:, at : at + 1],
            past_key_values=first.past_key_values,
            use_cache=True,
        )
        parts.append(step.last_hidden_state)
    real = text["attention_mask"].bool()
    torch.testing.assert_close(torch.cat(parts, 1)[real], whole[real], **TOLERANCE)


@torch.no_grad()
def test_autocast_attends_in_the_short_type(decoder, monkeypatch):
    dtypes: set[torch.dtype] = set()

    def watched(*tensors, **options):
        dtypes.update(tensor.dtype for tensor in tensors[:3])
        return packed_attention(*tensors, **options)

    monkeypatch.setattr(language, "packed_attention", watched)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        decoder(**packed(samples()))
    assert dtypes == {torch.bfloat16}


def test_a_part_of_a_sequence_needs_its_numbers(decoder):
    text = packed(samples()[:1])
    cache = decoder(**{**text, "lengths": None}, use_cache=True).past_key_values
    with pytest.raises(ValueError, match="position_ids are missing"):
        decoder(torch.tensor([[20]]), past_key_values=cache)


@pytest.mark.parametrize("shape", [(2, 6), (1, 5)])
def test_lengths_have_to_fill_one_row(decoder, shape):
    with pytest.raises(
        ValueError, match=r"lengths add up to 6 tokens, input_ids have the shape \("
    ):
        decoder(torch.full(shape, 20), lengths=[4, 2])


def test_images_have_to_fit_their_places(decoder):
    text = packed(samples())
    with pytest.raises(ValueError, match=r"2 images take \d+ tokens, the text has \d+ positions"):
        decoder(**{**text, "images": text["images"][:2]})
    with pytest.raises(ValueError, match="0 images take 0 tokens"):
        decoder(**{**text, "images": None})


@torch.no_grad()
def test_hidden_states_of_each_layer_are_given_when_asked_for(decoder):
    states = decoder(**packed(samples()), output_hidden_states=True)
    assert len(states.hidden_states) == decoder.config.num_hidden_layers + 1
    assert torch.equal(states.hidden_states[-1], states.last_hidden_state)


@pytest.mark.parametrize("arrange", [packed, padded])
def test_gradient_checkpointing_gives_the_same_gradients(decoder, arrange):
    def gradients():
        decoder.zero_grad()
        decoder(**arrange(samples())).last_hidden_state.square().mean().backward()
        return [of.grad.clone() for of in decoder.parameters()]

    decoder.train()
    plain = gradients()
    decoder.activation_checkpointing_enable()
    checkpointed = gradients()
    decoder.activation_checkpointing_disable()
    decoder.eval()
    torch.testing.assert_close(checkpointed, plain)
