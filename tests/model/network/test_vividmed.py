"""The whole model: losses, generation, localization, and its life on disk."""

import math
from dataclasses import fields, replace
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file
from torch import Tensor, nn
from torch.nn.functional import cross_entropy
from transformers import LogitsProcessor, LogitsProcessorList

from model.checkpoints.check import blank_model
from model.config import preset
from model.data.inputs import IGNORED, PhraseTarget, pack
from model.data.sequence import build_prompt, position_ids
from model.network.grounding import grounding_loss
from model.network.localization.losses import localization_loss
from model.network.vividmed import VividMedForCausalLM
from tests.model.examples import ANSWERS, REPORT, SHAPES, image, sample, samples, tiny, tokenizer

TOLERANCE: dict[str, Any] = {"atol": 1e-4, "rtol": 1e-4}
LAYOUTS = pytest.mark.parametrize("layout", ["shared", "separate"])
FORCED = "Seen:<p> heart</p>, <p></p><p> liver</p>."


def build(**changes):
    torch.manual_seed(0)
    model = VividMedForCausalLM(tiny(**changes)).eval()
    with torch.no_grad():
        for name, parameter in model.model.named_parameters():
            if parameter.dim() == 2 and "embed_tokens" not in name:
                parameter.mul_(4)
    return model


@pytest.fixture(scope="module")
def model():
    return build()


def arguments(of):
    batch = pack(of)
    return {field.name: getattr(batch, field.name) for field in fields(batch)}


def localized(model, batch):
    return model.localize(
        batch["input_ids"],
        images=batch["images"],
        token_type_ids=batch["token_type_ids"],
        lengths=batch["lengths"],
    )


def prompts(query="What is seen?", shapes=SHAPES):
    """Prompts about images of several sizes, as rows padded on the left."""
    pictures = [image(shape, seed) for seed, shape in enumerate(shapes)]
    texts = [
        build_prompt([], query, grid=one.grid, tokenizer=tokenizer(), config=tiny(), grounded=True)
        for one in pictures
    ]
    longest = max(len(text.input_ids) for text in texts)
    rows: dict[str, list[Tensor]] = {
        "input_ids": [],
        "token_type_ids": [],
        "attention_mask": [],
    }
    for text in texts:
        blank = torch.zeros(longest - len(text.input_ids), dtype=torch.long)
        rows["input_ids"].append(torch.cat([blank, text.input_ids]))
        rows["token_type_ids"].append(torch.cat([blank, text.token_types]))
        rows["attention_mask"].append(torch.cat([blank, torch.ones_like(text.input_ids)]))
    return {**{name: torch.stack(of) for name, of in rows.items()}, "images": pictures}


class Dictated(LogitsProcessor):
    """Makes the model write a given text, and keeps what it would have said at each step."""

    def __init__(self, text):
        self.ids = tokenizer()(text, add_special_tokens=False).input_ids
        self.heard = []

    def __call__(self, _input_ids, scores):
        forced = torch.full_like(scores, -math.inf)
        forced[:, self.ids[len(self.heard)]] = 0
        self.heard.append(scores)
        return forced


# Losses.


@torch.no_grad()
def test_the_language_loss_is_the_weighted_mean_over_what_is_learned(model):
    batch = arguments(samples())
    given = {name: of for name, of in batch.items() if name not in ("labels", "targets")}
    labels, weights = batch["labels"][0], batch["label_weights"][0]
    logits = model(**given).logits[0]
    losses = cross_entropy(logits, labels, reduction="none", ignore_index=IGNORED)
    wanted = (losses * weights).sum() / (labels != IGNORED).sum()
    output = model(**given, labels=batch["labels"])
    assert output.logits is None
    torch.testing.assert_close(output.loss, wanted)
    unweighted = model(**{**given, "label_weights": None}, labels=batch["labels"]).loss
    torch.testing.assert_close(unweighted, losses.sum() / (labels != IGNORED).sum())


@LAYOUTS
@torch.no_grad()
def test_the_loss_of_a_batch_is_that_of_its_samples(layout):
    model = build(localizers=layout)
    together = model(**arguments(samples()))
    alone = [model(**arguments([one])) for one in samples()]
    learned = [int((one.text.labels != IGNORED).sum()) for one in samples()]
    lm_loss = sum(of.lm_loss * n for of, n in zip(alone, learned, strict=True)) / sum(learned)
    grounding = sum(of.grounding.total for of in alone) / len(alone)
    torch.testing.assert_close(together.lm_loss, lm_loss, **TOLERANCE)
    torch.testing.assert_close(together.grounding.total, grounding, **TOLERANCE)
    torch.testing.assert_close(together.loss, lm_loss + grounding, **TOLERANCE)
    turned = model(**arguments(samples()[::-1]))
    torch.testing.assert_close(turned.loss, together.loss, **TOLERANCE)


@LAYOUTS
@torch.no_grad()
def test_targets_are_compared_with_the_localization_of_their_phrases(layout):
    model = build(localizers=layout)
    of = samples()
    batch = arguments(of)
    found = localized(model, batch)
    parts = [localization_loss(one, sample.targets) for one, sample in zip(found, of, strict=True)]
    grounding = model(**batch).grounding
    for name in ("dice", "focal", "l1", "giou", "presence"):
        wanted = sum(getattr(part, name) for part in parts) / len(of)
        torch.testing.assert_close(getattr(grounding, name), wanted, **TOLERANCE)
    assert all(getattr(grounding, name) > 0 for name in ("dice", "l1"))


@torch.no_grad()
def test_phrases_without_annotation_are_left_out(model):
    first, second, _ = samples()
    partly = replace(first, targets=(PhraseTarget(), first.targets[1]))
    one = model(**arguments([replace(first, targets=())])).grounding
    assert one.total == 0
    kept = model(**arguments([partly])).grounding
    swapped = model(**arguments([replace(first, targets=partly.targets[::-1])])).grounding
    assert 0 < kept.total != swapped.total
    half = model(**arguments([partly, replace(second, targets=())])).grounding
    torch.testing.assert_close(half.total, kept.total / 2)


@LAYOUTS
@pytest.mark.parametrize("annotated", [(0, 1), (0,), (1,), ()])
def test_every_parameter_has_a_gradient_whatever_is_annotated(layout, annotated):
    model = build(localizers=layout).train()
    of = [
        one if number in annotated else replace(one, targets=())
        for number, one in enumerate(samples())
    ]
    model(**arguments(of)).loss.backward()
    assert [name for name, of in model.named_parameters() if of.grad is None] == []
    moved = model.sam.image_encoder.norm.weight.grad.any()
    assert moved == bool(set(annotated) & ({0, 1} if layout == "shared" else {1}))


DEGENERATE = {
    "one pixel": lambda: sample(image((1, 1, 1)), REPORT),
    "an empty phrase": lambda: sample(image((1, 8, 8)), "a<p></p> b"),
    "no text": lambda: sample(image((1, 8, 8)), ""),
    "a question cut before its answer": lambda: sample(image((1, 8, 8)), REPORT, max_length=22),
    "a text cut inside a phrase": lambda: sample(image((1, 8, 8)), REPORT, max_length=44),
    "a text beyond the positions of CogVLM": lambda: sample(
        image((1, 8, 8)), "a " * 3000, max_length=2100
    ),
    "targets that nobody annotated": lambda: replace(
        samples()[0], targets=(PhraseTarget(), PhraseTarget())
    ),
    "a mask and no box": lambda: replace(
        samples()[0],
        targets=(
            PhraseTarget(
                mask=torch.ones(samples()[0].image.grid.size, dtype=torch.bool),
                boxes=torch.zeros(0, 6),
            ),
            PhraseTarget(boxes=torch.rand(9, 6)),
        ),
    ),
}


@LAYOUTS
@pytest.mark.parametrize("case", DEGENERATE)
def test_odd_samples_are_learned_from(layout, case):
    model = build(localizers=layout)
    one = DEGENERATE[case]()
    if case == "a text cut inside a phrase":
        assert one.text.num_cut == 1
        assert one.text.input_ids[-1] != tiny().eop_token_id
    output = model(**arguments([one]))
    output.loss.backward()
    assert output.loss.isfinite()
    assert all(of.grad.isfinite().all() for of in model.parameters())
    assert (output.grounding.total > 0) == any(
        of.mask is not None or of.boxes is not None for of in one.targets
    )


@LAYOUTS
@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_a_model_of_half_precision_learns_writes_and_localizes(layout, dtype):
    model = build(localizers=layout).to(dtype)
    batch = arguments(samples())
    output = model(**batch)
    output.loss.backward()
    assert all(of.grad.isfinite().all() for of in model.parameters())
    whole = build(localizers=layout)(**batch)
    torch.testing.assert_close(output.loss, whole.loss, rtol=0.02, atol=0.02)
    assert len(model.generate(**prompts(), max_new_tokens=2)) == len(SHAPES)
    found = localized(model, batch)
    assert all(of.mask_logits.isfinite().all() and of.boxes.isfinite().all() for of in found)


@LAYOUTS
def test_a_frozen_localizer_still_teaches_what_prompts_it(layout):
    model = build(localizers=layout)
    for name in ("sam", "isam_model"):
        if part := getattr(model, name):
            part.requires_grad_(False)
    model(**arguments(samples())).loss.backward()
    assert model.vg_proj[0].weight.grad.any()
    assert model.sam.image_encoder.norm.weight.grad is None


def test_what_inference_leaves_behind_serves_the_whole_models_training(model):
    batch = arguments(samples())
    with torch.inference_mode():
        model.generate(**prompts(), max_new_tokens=2)
        localized(model, batch)
    model.zero_grad()
    model(**batch).loss.backward()
    grads = [of.grad for of in model.parameters() if of.grad is not None]
    assert all(of.isfinite().all() for of in grads)
    assert model.model.vision.patch_embedding.proj.weight.grad.any()
    model.zero_grad()


def test_a_loss_of_nothing_lies_where_the_model_is():
    """Seen on the meta device: the CPU's zero would not be reduced over processes on GPUs."""
    model = blank_model(tiny(localizers="separate"))
    phrases = [torch.empty(1, 128, device="meta")]
    loss = grounding_loss(model._branches(), [samples()[0].image], phrases, [(PhraseTarget(),)])
    assert {getattr(loss, field.name).device.type for field in fields(loss)} == {"meta"}


def test_images_and_targets_have_to_fit_the_samples(model):
    batch = arguments(samples())
    with pytest.raises(ValueError, match="3 images and 2 lists of targets for 3 samples"):
        model(**{**batch, "targets": batch["targets"][:2]})
    targets = (batch["targets"][0][:1], *batch["targets"][1:])
    with pytest.raises(ValueError, match="sample 0 has 1 targets for 2 phrases"):
        model(**{**batch, "targets": targets})
    words = torch.full((1, 4), 20)
    with pytest.raises(ValueError, match="0 images for 1 samples: each sample has one"):
        model.localize(words, images=[])


def test_patches_have_to_be_those_of_both_networks():
    config = tiny()
    config.localizer.patch_size = 16
    with pytest.raises(ValueError, match="patch_size 8 and localizer_config 16"):
        VividMedForCausalLM(config)


# Generation.


@torch.no_grad()
def test_writing_is_reading(model):
    """Step by step with a cache, the model says what it says of the whole text at once."""
    asked = prompts()
    dictated = Dictated(FORCED)
    numbers = []
    hook = model.model.register_forward_pre_hook(
        lambda _, __, given: numbers.append(given["position_ids"]), with_kwargs=True
    )
    written = model.generate(
        **asked,
        max_new_tokens=len(dictated.ids),
        do_sample=False,
        logits_processor=LogitsProcessorList([dictated]),
    )
    hook.remove()
    start = asked["input_ids"].shape[1]
    more = torch.ones_like(written[:, start:])
    mask = torch.cat([asked["attention_mask"], more], 1)
    types = torch.cat([asked["token_type_ids"], more * 0], 1)
    whole = model(
        written, attention_mask=mask, token_type_ids=types, images=asked["images"]
    ).logits[:, start - 1 : -1]
    at_once = position_ids(written, types, model.config, mask)
    assert torch.equal(torch.cat(numbers, 1), at_once[:, :-1])
    torch.testing.assert_close(torch.stack(dictated.heard, 1), whole, **TOLERANCE)
    assert written[:, start:].tolist() == [dictated.ids] * len(SHAPES)


@torch.no_grad()
def test_rows_are_answered_as_alone(model):
    together = model.generate(**prompts(), max_new_tokens=12, do_sample=False, eos_token_id=None)
    for row, shape in enumerate(SHAPES):
        asked = prompts(shapes=[shape] if row == 0 else SHAPES)
        if row:
            length = int(asked["attention_mask"][row].sum())
            asked = {
                name: of[row : row + 1, -length:] if isinstance(of, torch.Tensor) else [of[row]]
                for name, of in asked.items()
            }
        alone = model.generate(**asked, max_new_tokens=12, do_sample=False, eos_token_id=None)
        assert alone[0, -12:].tolist() == together[row, -12:].tolist()


@torch.no_grad()
def test_a_cache_only_saves_time(model):
    asked = prompts()
    with_cache, without = (
        model.generate(**asked, max_new_tokens=6, do_sample=False, use_cache=cached)
        for cached in (True, False)
    )
    assert torch.equal(with_cache, without)


@torch.no_grad()
def test_beams_share_their_image(model):
    asked = prompts()
    seen = []
    hook = model.model.vision.register_forward_hook(lambda _, args, __: seen.append(len(args[0])))
    beams = model.generate(
        **asked, max_new_tokens=6, num_beams=3, num_return_sequences=2, do_sample=False
    )
    hook.remove()
    assert len(beams) == 2 * len(SHAPES)
    assert seen == [len(SHAPES)]
    for row in range(len(SHAPES)):
        one = {
            name: of[row : row + 1] if isinstance(of, torch.Tensor) else [of[row]]
            for name, of in asked.items()
        }
        alone = model.generate(
            **one, max_new_tokens=6, num_beams=3, num_return_sequences=2, do_sample=False
        )
        width = min(alone.shape[1], beams.shape[1])
        assert torch.equal(alone[:, :width], beams[2 * row : 2 * row + 2, :width])


@torch.no_grad()
def test_places_of_an_image_are_no_padding(model):
    asked = prompts()
    mask = asked.pop("attention_mask")
    kwargs = {"max_new_tokens": 6, "do_sample": False}
    given = model.generate(**asked, attention_mask=mask, **kwargs)
    assert torch.equal(model.generate(**asked, **kwargs), given)


@torch.no_grad()
def test_sampling_gives_several_answers(model):
    torch.manual_seed(1)
    answers = model.generate(**prompts(), max_new_tokens=8, do_sample=True, num_return_sequences=4)
    assert len(answers) == 4 * len(SHAPES)
    assert len({tuple(row.tolist()) for row in answers[:4]}) > 1


# Localization.


@LAYOUTS
@torch.no_grad()
def test_phrases_are_localized_the_same_packed_shuffled_padded_and_alone(layout):
    model = build(localizers=layout)
    of = samples()
    batch = arguments(of)
    together = localized(model, batch)
    turned = localized(model, arguments(of[::-1]))[::-1]
    for one, found, shuffled in zip(of, together, turned, strict=True):
        row, types = (t.unsqueeze(0) for t in (one.text.input_ids, one.text.token_types))
        blank = torch.zeros(1, 3, dtype=torch.long)
        (alone,) = model.localize(
            torch.cat([blank, row, blank], 1),
            images=[one.image],
            token_type_ids=torch.cat([blank, types, blank], 1),
            attention_mask=torch.cat([blank, torch.ones_like(row), blank], 1),
        )
        assert found.mask_logits.shape == (one.text.num_phrases, *one.image.grid.size)
        assert found.boxes.shape == (one.text.num_phrases, 6, 6)
        for name in ("mask_logits", "boxes", "presence_logits"):
            torch.testing.assert_close(getattr(alone, name), getattr(found, name), **TOLERANCE)
            torch.testing.assert_close(getattr(shuffled, name), getattr(found, name), **TOLERANCE)


@LAYOUTS
@torch.no_grad()
def test_only_what_is_asked_for_is_computed(layout):
    model = build(localizers=layout)
    batch = arguments(samples())
    options = {name: batch[name] for name in ("images", "token_type_ids", "lengths")}
    masks = model.localize(batch["input_ids"], **options, boxes=False)
    boxes = model.localize(batch["input_ids"], **options, masks=False)
    assert all(of.boxes is None and of.mask_logits is not None for of in masks)
    assert all(of.boxes is not None and of.mask_logits is None for of in boxes)
    nothing = model.localize(batch["input_ids"], **options, masks=False, boxes=False)
    assert [(of.boxes, of.mask_logits) for of in nothing] == [(None, None)] * len(SHAPES)


@torch.no_grad()
def test_the_prompt_is_the_state_that_the_configuration_names():
    one = samples()[1]
    masks = []
    for state in ("close", "before_close"):
        model = build(prompt_state=state)
        batch = arguments([one])
        (found,) = localized(model, batch)
        masks.append(found.mask_logits)
    assert not torch.allclose(*masks)


@torch.no_grad()
def test_states_after_the_final_norm_become_prompts_through_two_layers(model):
    batch = arguments(samples())
    seen = []
    hook = model.vg_proj.register_forward_hook(lambda _, args, out: seen.extend([args[0], out]))
    localized(model, batch)
    hook.remove()
    given = {name: batch[name] for name in ("images", "token_type_ids", "lengths")}
    states = model.model(batch["input_ids"], **given).last_hidden_state[0]
    at = (batch["input_ids"][0] == model.config.eop_token_id).nonzero().squeeze(1)
    torch.testing.assert_close(seen[0], states[at])
    weights = model.vg_proj.state_dict()
    inner = (states[at] @ weights["0.weight"].T + weights["0.bias"]).clamp(min=0)
    torch.testing.assert_close(seen[1], inner @ weights["2.weight"].T + weights["2.bias"])


# On disk.


@LAYOUTS
@torch.no_grad()
def test_a_saved_model_comes_back(layout, tmp_path):
    model = build(localizers=layout)
    model.save_pretrained(tmp_path)
    again = VividMedForCausalLM.from_pretrained(tmp_path)
    assert again.config.localizers == layout
    state, loaded = model.state_dict(), again.state_dict()
    assert state.keys() == loaded.keys()
    assert all(torch.equal(of, loaded[name]) for name, of in state.items())
    batch = arguments(samples())
    assert torch.equal(model(**batch).loss, again(**batch).loss)


@LAYOUTS
@torch.no_grad()
def test_the_localizer_stays_in_single_precision(layout, tmp_path):
    model = build(localizers=layout)
    model.save_pretrained(tmp_path)
    short = VividMedForCausalLM.from_pretrained(tmp_path, dtype=torch.bfloat16)
    for name, of in short.state_dict().items():
        single = name.startswith(("vg_proj.", "sam.", "isam_model."))
        assert of.dtype == (torch.float32 if single else torch.bfloat16), name
    batch = arguments(samples())
    loss = short(**batch)
    assert loss.loss.dtype == torch.float32
    assert short(**{**batch, "label_weights": None}).lm_loss.dtype == torch.float32
    torch.testing.assert_close(loss.lm_loss, model(**batch).lm_loss, rtol=0.05, atol=0.05)
    assert short.generate(**prompts(), max_new_tokens=3).shape[0] == len(SHAPES)
    short.save_pretrained(tmp_path / "again")
    again = VividMedForCausalLM.from_pretrained(tmp_path / "again", dtype="auto")
    assert torch.equal(again(**batch).loss, loss.loss)


@torch.no_grad()
def test_autocast_spares_the_localizer(model):
    batch = arguments(samples())
    kinds = []
    hook = model.sam.register_forward_hook(
        lambda _, args, out: kinds.extend([args[1][0].dtype, out[1].mask_logits.dtype])
    )
    with torch.autocast("cpu", dtype=torch.bfloat16):
        output = model(**batch)
    hook.remove()
    assert kinds == [torch.float32] * 2
    torch.testing.assert_close(output.loss, model(**batch).loss, rtol=0.05, atol=0.05)


@torch.no_grad()
def test_parts_that_a_checkpoint_lacks_are_drawn_anew(model, tmp_path):
    model.save_pretrained(tmp_path)
    file = tmp_path / "model.safetensors"
    kept = {
        name: of
        for name, of in load_file(file).items()
        if name.startswith("model.") and "patch_embedding" not in name and "boi" not in name
    }
    save_file(kept, file, metadata={"format": "pt"})
    torch.manual_seed(3)
    again = VividMedForCausalLM.from_pretrained(tmp_path)
    fresh = VividMedForCausalLM(tiny())
    for name, of in again.state_dict().items():
        if name in kept:
            assert torch.equal(of, kept[name]), name
        elif of.numel() >= 64:  # the deviation of fewer says little
            wanted = float(fresh.state_dict()[name].std(correction=0))
            found = float(of.std(correction=0))
            assert found == pytest.approx(wanted, rel=0.5, abs=0.02), name


@torch.no_grad()
def test_the_localizer_is_drawn_as_pytorch_draws():
    model = VividMedForCausalLM(tiny())
    for name in ("vg_proj.0", "sam.image_encoder.blocks.0.attn.qkv"):
        linear = model.get_submodule(name)
        assert isinstance(linear, nn.Linear)
        wanted = 1 / math.sqrt(3 * linear.in_features)
        assert float(linear.weight.std()) == pytest.approx(wanted, rel=0.05)
    assert float(model.sam.mask_decoder.mask_tokens.weight.std()) == pytest.approx(1, rel=0.1)
    assert float(model.lm_head.weight.std()) == pytest.approx(0.02, rel=0.05)
    assert float(model.model.vision.patch_embedding.proj.weight.std()) == pytest.approx(
        0.02, rel=0.05
    )
    assert (model.model.norm.weight == 1).all()


def test_the_vocabulary_can_grow(model):
    grown = build()
    grown.resize_token_embeddings(520)
    assert grown.config.vocab_size == 520
    assert grown.get_input_embeddings().weight.shape == grown.lm_head.weight.shape == (520, 128)
    batch = arguments(samples())
    given = {name: of for name, of in batch.items() if name not in ("labels", "targets")}
    assert grown(**given).logits.shape[-1] == 520


def test_the_paper_model_is_as_large_as_published():
    with torch.device("meta"):
        paper = VividMedForCausalLM(preset("paper"))

    def size(module):
        return sum(of.numel() for of in module.parameters())

    assert size(paper.model.layers[0]) == 404_758_528
    assert size(paper.model.vision.transformer.layers[0]) == 67_926_784
    assert round(size(paper.model) + size(paper.lm_head), -7) == 17_670_000_000


def test_keys_are_those_of_the_released_model():
    keys = set(build(localizers="separate").state_dict())
    for key in (
        "model.embed_tokens.weight",
        "model.layers.1.self_attn.vision_expert_query_key_value.weight",
        "model.layers.0.self_attn.language_expert_dense.weight",
        "model.layers.0.mlp.vision_mlp.gate_proj.weight",
        "model.layers.0.post_attention_layernorm.weight",
        "model.norm.weight",
        "model.vision.patch_embedding.cls_pos_embed.weight",
        "model.vision.linear_proj.dense_4h_to_h.weight",
        "model.vision.boi",
        "lm_head.weight",
        "vg_proj.0.weight",
        "vg_proj.2.bias",
        "sam.mask_decoder.mask_tokens.weight",
        "isam_model.box_head.4.weight",
    ):
        assert key in keys


def test_answers_of_the_examples_have_the_phrases_they_should():
    assert [one.text.num_phrases for one in samples()] == [2, 2, 0]
    assert ANSWERS[0] == REPORT


def test_a_sample_with_boxes_alone_pays_for_no_mask(model):
    computed = []
    decoder = model.sam.mask_decoder
    decoder.output_upscaling.register_forward_hook(lambda *_: computed.append("mask"))
    boxes = PhraseTarget(boxes=torch.zeros(0, 6))
    images = [sample.image for sample in samples()[:2]]
    prompts = [torch.randn(1, model.config.localizer.hidden_size)] * 2
    mask = torch.zeros(images[1].grid.size, dtype=torch.bool)

    grounding_loss(model._branches(), images, prompts, [(boxes,), (PhraseTarget(mask=mask),)])

    assert computed == ["mask"]
