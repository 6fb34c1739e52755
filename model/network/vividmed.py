"""The whole model: text from images, and from the text's phrases masks and boxes in the images.

A phrase's hidden state at its closing bracket, projected, prompts the localiser (the paper's
section 3.3). Module names are those of the released model (MMMM).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.functional import cross_entropy
from transformers import Cache, GenerationMixin
from transformers.modeling_utils import slice_logits_to_keep
from transformers.utils import ModelOutput

from model.config import VividMedConfig
from model.data.inputs import IGNORED, ModelImage, PhraseTarget
from model.data.phrases import phrase_states
from model.data.sequence import position_ids as number_tokens
from model.network.grounding import Branch, grounding_loss, localize, nothing_of
from model.network.language import VividMedModel, VividMedPreTrainedModel
from model.network.localization.localizer import Localization, Localizer
from model.network.localization.losses import LocalizationLoss

RELEASED_MASK_INSTANCES = 3
"""Instance tokens of the released network for masks, which nothing reads."""


@dataclass
class VividMedOutput(ModelOutput):
    """What a pass gives; losses need `labels`, those of localisation `targets`.

    loss: the language model's loss, plus the localiser's.
    lm_loss: weighted cross entropy, over the number of positions that are learned.
    grounding: the parts of the localiser's loss, means over all samples of the batch.
    logits: (rows, tokens, vocabulary); None with `labels`, when they are computed at the positions
        that are learned alone.
    past_key_values: the cache.
    hidden_states: of each layer, if `output_hidden_states`.
    """

    loss: Tensor | None = None
    lm_loss: Tensor | None = None
    grounding: LocalizationLoss | None = None
    logits: Tensor | None = None
    past_key_values: Cache | None = None
    hidden_states: tuple[Tensor, ...] | None = None


class VividMedForCausalLM(VividMedPreTrainedModel, GenerationMixin):
    """CogVLM with a promptable localiser.

    The localiser and what prompts it stay in single precision when the rest is loaded in a shorter
    type, as released.

    Raises:
        ValueError: if the vision transformer and the localiser have patches of different size.
    """

    _keep_in_fp32_modules_strict = ("sam", "isam_model", "vg_proj")

    def __init__(self, config: VividMedConfig) -> None:
        super().__init__(config)
        self.model = VividMedModel(config)
        self.lm_head = nn.Linear(config.hidden_size, config.vocab_size, bias=False)
        self.vg_proj = nn.Sequential(
            nn.Linear(config.hidden_size, config.hidden_size),
            nn.ReLU(),
            nn.Linear(config.hidden_size, config.localizer.hidden_size),
        )
        if config.localizer.patch_size != config.vision.patch_size:
            raise ValueError(
                f"vision_config cuts images into patches of {config.vision.patch_size} and"
                f" localizer_config of {config.localizer.patch_size}: they share an image's grid,"
                " give both the same patch_size"
            )
        instances = config.localizer.num_instances
        self.sam: Localizer
        self.isam_model: Localizer | None = None
        if config.localizers == "shared":
            self.sam = Localizer(config.localizer, num_instances=instances, boxes=True)
        else:
            self.sam = Localizer(
                config.localizer, num_instances=RELEASED_MASK_INSTANCES, boxes=False
            )
            self.isam_model = Localizer(config.localizer, num_instances=instances, boxes=True)
        # The language model's small deviation would silence an untrained localiser.
        for part in self._localizing_parts():
            for module in part.modules():
                module.draws_itself = True  # type: ignore[assignment]
        self.post_init()

    def forward(
        self,
        input_ids: Tensor,
        attention_mask: Tensor | None = None,
        token_type_ids: Tensor | None = None,
        position_ids: Tensor | None = None,
        past_key_values: Cache | None = None,
        images: Sequence[ModelImage] | None = None,
        labels: Tensor | None = None,
        label_weights: Tensor | None = None,
        lengths: Sequence[int] | None = None,
        targets: Sequence[Sequence[PhraseTarget]] | None = None,
        use_cache: bool | None = None,
        logits_to_keep: int | Tensor = 0,
        **kwargs: Any,
    ) -> VividMedOutput:
        """Run the model.

        Args:
            input_ids: (rows, tokens); this and the next five are explained by the decoder,
                `VividMedModel.forward`.
            attention_mask: 0 at padding.
            token_type_ids: 1 at the places of images.
            position_ids: see `model.data.sequence`.
            past_key_values: of the tokens before.
            images: in reading order.
            labels: (rows, tokens), the id that each position shall predict, already shifted, or
                IGNORED.
            label_weights: (rows, tokens), the weight of each position in the loss; none: 1.
            lengths: tokens of each sample, if the one row holds samples one behind the other.
            targets: of each sample's phrases in reading order, or none for a sample without any.
            use_cache: whether keys and values are kept.
            logits_to_keep: how many of the last positions get logits; 0: all.
            **kwargs: `output_hidden_states`, and what generation hands around.

        Raises:
            ValueError: if images, samples, phrases and targets do not fit each other in number.
        """
        states = self.model(
            input_ids,
            attention_mask=attention_mask,
            token_type_ids=token_type_ids,
            position_ids=position_ids,
            past_key_values=past_key_values,
            images=images,
            lengths=lengths,
            use_cache=use_cache,
            **kwargs,
        )
        hidden = states.last_hidden_state
        output = VividMedOutput(
            past_key_values=states.past_key_values, hidden_states=states.hidden_states
        )
        if labels is None:
            output.logits = self.lm_head(slice_logits_to_keep(hidden, logits_to_keep))
            return output
        output.lm_loss = output.loss = self._language_loss(hidden, labels, label_weights)
        if targets:
            with self._single_precision():
                prompts = self._prompts(hidden, input_ids, lengths)
                output.grounding = grounding_loss(self._branches(), images or (), prompts, targets)
            unused = nothing_of(self._localizing_parts())
            output.loss = output.lm_loss + output.grounding.total + unused
        return output

    @torch.no_grad()
    def localize(
        self,
        input_ids: Tensor,
        *,
        images: Sequence[ModelImage],
        attention_mask: Tensor | None = None,
        token_type_ids: Tensor | None = None,
        lengths: Sequence[int] | None = None,
        masks: bool = True,
        boxes: bool = True,
    ) -> list[Localization]:
        """Localise the phrases of finished texts.

        Args:
            input_ids: (rows, tokens), prompt and answer.
            images: one for each sample.
            attention_mask: (rows, tokens), 0 at padding.
            token_type_ids: (rows, tokens), 1 at the places of the image.
            lengths: tokens of each sample, if the one row holds samples one behind the other.
            masks: whether to compute masks.
            boxes: whether to compute boxes.

        Returns:
            For each sample its phrases, as `model.data.phrases.phrase_ends` finds them.

        Raises:
            ValueError: if images and samples, or images and their places, do not fit each other.
        """
        if lengths is None:
            real = torch.ones_like(input_ids) if attention_mask is None else attention_mask
            lengths = real.sum(-1).tolist()
            input_ids = input_ids[real.bool()].unsqueeze(0)
            if token_type_ids is not None:
                token_type_ids = token_type_ids[real.bool()].unsqueeze(0)
        hidden = self.model(
            input_ids, token_type_ids=token_type_ids, images=images, lengths=lengths
        ).last_hidden_state
        with self._single_precision():
            prompts = self._prompts(hidden, input_ids, lengths)
            return localize(self._branches(), images, prompts, masks=masks, boxes=boxes)

    def prepare_inputs_for_generation(
        self,
        input_ids: Tensor,
        *,
        attention_mask: Tensor | None = None,
        token_type_ids: Tensor | None = None,
        images: Sequence[ModelImage] | None = None,
        is_first_iteration: bool | None = False,
        **kwargs: Any,
    ) -> dict[str, Any]:
        """Make the arguments of the next step from everything written so far.

        Positions are those of the whole sequence, prompt and answer, the same as when it is read
        at once.
        """
        if token_type_ids is None:
            token_type_ids = torch.zeros_like(input_ids)
        kwargs["position_ids"] = number_tokens(
            input_ids, token_type_ids, self.config, attention_mask
        )
        inputs: dict[str, Any] = super().prepare_inputs_for_generation(
            input_ids,
            attention_mask=attention_mask,
            token_type_ids=token_type_ids,
            is_first_iteration=is_first_iteration,
            **kwargs,
        )
        # The cache has seen the image.
        seen = kwargs.get("past_key_values") is not None and not is_first_iteration
        inputs["images"] = None if seen else images
        return inputs

    def _prepare_attention_mask_for_generation(
        self, inputs_tensor: Tensor, generation_config: Any, model_kwargs: dict[str, Any]
    ) -> Tensor:
        # The places of an image hold the padding id, but are none.
        mask: Tensor = super()._prepare_attention_mask_for_generation(
            inputs_tensor, generation_config, model_kwargs
        )
        token_types = model_kwargs.get("token_type_ids")
        return mask if token_types is None else mask | token_types

    def _expand_inputs_for_generation(
        self, expand_size: int = 1, **kwargs: Any
    ) -> tuple[Tensor, dict[str, Any]]:
        ids, expanded = super()._expand_inputs_for_generation(expand_size, **kwargs)
        if images := expanded.get("images"):
            expanded["images"] = [image for image in images for _ in range(expand_size)]
        return ids, expanded

    def _language_loss(
        self, hidden: Tensor, labels: Tensor, label_weights: Tensor | None
    ) -> Tensor:
        learned = labels != IGNORED
        logits = self.lm_head(hidden[learned]).float()
        losses = cross_entropy(logits, labels[learned], reduction="none")
        if label_weights is not None:
            losses = losses * label_weights[learned]
        return losses.sum() / learned.sum().clamp(min=1)

    def _prompts(
        self, hidden: Tensor, input_ids: Tensor, lengths: Sequence[int] | None
    ) -> tuple[Tensor, ...]:
        rows, tokens = input_ids.shape
        lengths = lengths or [tokens] * rows
        states = phrase_states(hidden.flatten(0, 1), input_ids.flatten(), lengths, self.config)
        together = torch.cat(states).to(next(self.vg_proj.parameters()).dtype)
        return self.vg_proj(together).split([len(of) for of in states])

    def _branches(self) -> list[Branch]:
        if self.isam_model is None:
            return [Branch(self.sam, masks=True, boxes=True)]
        return [
            Branch(self.sam, masks=True, boxes=False),
            Branch(self.isam_model, masks=False, boxes=True),
        ]

    def _localizing_parts(self) -> list[nn.Module]:
        return [self.vg_proj, *(branch.network for branch in self._branches())]

    def _single_precision(self) -> torch.autocast:
        return torch.autocast(self.device.type, enabled=False)
