"""The whole model: it writes text about images and localizes the phrases of the text in them.

The hidden state of a phrase's closing bracket, projected, prompts the localizer (the paper's
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
from model.data.sequence import position_ids as compute_position_ids
from model.network.grounding import Branch, grounding_loss, localize, zero_from_parameters
from model.network.language import VividMedModel, VividMedPreTrainedModel
from model.network.localization.localizer import Localization, Localizer
from model.network.localization.losses import LocalizationLoss

RELEASED_MASK_INSTANCES = 3
"""Instance tokens of the released mask network; they are in its weights and have no output."""


@dataclass
class VividMedOutput(ModelOutput):
    """Output of a forward pass; losses need `labels`, the localization loss also `targets`.

    loss: the language model's loss, plus the localizer's.
    lm_loss: weighted cross entropy, divided by the number of positions with a label.
    grounding: the parts of the localizer's loss, means over all samples of the batch.
    logits: (rows, tokens, vocabulary); None with `labels`, because the loss computes them only at
        positions with a label.
    past_key_values: the cache of keys and values.
    hidden_states: the states of each layer, with `output_hidden_states`.
    """

    loss: Tensor | None = None
    lm_loss: Tensor | None = None
    grounding: LocalizationLoss | None = None
    logits: Tensor | None = None
    past_key_values: Cache | None = None
    hidden_states: tuple[Tensor, ...] | None = None


class VividMedForCausalLM(VividMedPreTrainedModel, GenerationMixin):
    """CogVLM with a promptable localizer.

    The localizer and the projection to its prompts stay in single precision when the rest is loaded
    in half precision, as in the released code.

    Raises:
        ValueError: if the vision transformer and the localizer have different patch sizes.
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
                f"vision_config has patch_size {config.vision.patch_size} and localizer_config"
                f" {config.localizer.patch_size}: both use the same patch grid of an image, give"
                " them the same patch_size"
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
        # Initialized with the language model's small standard deviation, an untrained localizer
        # would give nearly constant outputs: its modules keep PyTorch's initialization.
        for part in self._localizing_parts():
            for module in part.modules():
                module.keeps_own_init = True  # type: ignore[assignment]
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
            input_ids: (rows, tokens); for this and the next five see `VividMedModel.forward`.
            attention_mask: 0 at padding.
            token_type_ids: 1 at image positions.
            position_ids: see `model.data.sequence`.
            past_key_values: cache of the earlier tokens.
            images: in reading order.
            labels: (rows, tokens), the id that each position predicts (already shifted), or
                IGNORED.
            label_weights: (rows, tokens), the weight of each position in the loss; None: 1.
            lengths: tokens of each sample, if one row holds packed samples.
            targets: for each sample the targets of its phrases in reading order; empty if it has
                none.
            use_cache: whether to keep keys and values.
            logits_to_keep: number of last positions to compute logits for; 0: all.
            **kwargs: `output_hidden_states`, and further arguments of generation.

        Raises:
            ValueError: if the numbers of images, samples, phrases and targets do not match.
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
            zero = zero_from_parameters(self._localizing_parts())
            output.loss = output.lm_loss + output.grounding.total + zero
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
        """Localize the phrases of complete texts.

        Args:
            input_ids: (rows, tokens), prompt and answer.
            images: one for each sample.
            attention_mask: (rows, tokens), 0 at padding.
            token_type_ids: (rows, tokens), 1 at image positions.
            lengths: tokens of each sample, if one row holds packed samples.
            masks: whether to compute masks.
            boxes: whether to compute boxes.

        Returns:
            One localization for each sample, its phrases in the order of
            `model.data.phrases.phrase_ends`.

        Raises:
            ValueError: if the images do not match the samples or the image positions.
        """
        if lengths is None:
            # Packed, padded rows go through the same code and cost nothing for padding.
            kept = torch.ones_like(input_ids) if attention_mask is None else attention_mask
            lengths = kept.sum(-1).tolist()
            input_ids = input_ids[kept.bool()].unsqueeze(0)
            if token_type_ids is not None:
                token_type_ids = token_type_ids[kept.bool()].unsqueeze(0)
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
        """Make the arguments of the next step from the tokens so far.

        Positions are computed on the whole sequence, prompt and answer, and so equal those of one
        forward pass over it.
        """
        if token_type_ids is None:
            token_type_ids = torch.zeros_like(input_ids)
        kwargs["position_ids"] = compute_position_ids(
            input_ids, token_type_ids, self.config, attention_mask
        )
        inputs: dict[str, Any] = super().prepare_inputs_for_generation(
            input_ids,
            attention_mask=attention_mask,
            token_type_ids=token_type_ids,
            is_first_iteration=is_first_iteration,
            **kwargs,
        )
        # After the first step the image tokens are in the cache.
        cached = kwargs.get("past_key_values") is not None and not is_first_iteration
        inputs["images"] = None if cached else images
        return inputs

    def _prepare_attention_mask_for_generation(
        self, inputs_tensor: Tensor, generation_config: Any, model_kwargs: dict[str, Any]
    ) -> Tensor:
        # Image positions hold the padding id, but are not padding.
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
        labeled = labels != IGNORED
        # Most positions are image or question: logits are computed only where there is a label.
        logits = self.lm_head(hidden[labeled]).float()
        losses = cross_entropy(logits, labels[labeled], reduction="none")
        if label_weights is not None:
            losses = losses * label_weights[labeled]
        return losses.sum() / labeled.sum().clamp(min=1)

    def _prompts(
        self, hidden: Tensor, input_ids: Tensor, lengths: Sequence[int] | None
    ) -> tuple[Tensor, ...]:
        rows, tokens = input_ids.shape
        lengths = lengths or [tokens] * rows
        states = phrase_states(hidden.flatten(0, 1), input_ids.flatten(), lengths, self.config)
        # One projection for the phrases of all samples.
        all_states = torch.cat(states).to(next(self.vg_proj.parameters()).dtype)
        return self.vg_proj(all_states).split([len(of_sample) for of_sample in states])

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
