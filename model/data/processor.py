"""Processors in the manner of transformers: from images and questions to inputs of `generate`."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor
from torch.nn.functional import pad
from transformers import AutoConfig, AutoImageProcessor, AutoProcessor, PreTrainedTokenizerBase
from transformers.feature_extraction_utils import BatchFeature
from transformers.image_processing_utils import BaseImageProcessor
from transformers.processing_utils import ProcessorMixin

from model.config import VividMedConfig
from model.data.images import SourceImage, prepare
from model.data.inputs import TokenSequence
from model.data.sequence import Turn, build_prompt


class VividMedImageProcessor(BaseImageProcessor):
    """Prepares images for a token budget; the arguments are fields of the configuration."""

    model_input_names = ["images"]  # noqa: RUF012

    def __init__(
        self,
        patch_size: int = 16,
        pool: int = 2,
        max_vision_tokens: int = 256,
        max_depth_tokens: int = 4,
        **kwargs: Any,
    ) -> None:
        super().__init__(**kwargs)
        self.patch_size = patch_size
        self.pool = pool
        self.max_vision_tokens = max_vision_tokens
        self.max_depth_tokens = max_depth_tokens

    @classmethod
    def of(cls, config: VividMedConfig) -> VividMedImageProcessor:
        """The image processor of a model."""
        return cls(
            patch_size=config.vision.patch_size,
            pool=config.vision.pool,
            max_vision_tokens=config.max_vision_tokens,
            max_depth_tokens=config.max_depth_tokens,
        )

    def preprocess(self, images: Sequence[SourceImage], **_: Any) -> BatchFeature:
        """Prepare images of any sizes.

        Returns:
            `images`, the inputs of the model, and `frames`, which map them to the files.
        """
        # `prepare` reads only these fields of a configuration.
        config = VividMedConfig(
            vision_config={"patch_size": self.patch_size, "pool": self.pool},
            max_vision_tokens=self.max_vision_tokens,
            max_depth_tokens=self.max_depth_tokens,
        )
        pairs = [prepare(image, config) for image in images]
        return BatchFeature(
            {"images": [image for image, _ in pairs], "frames": [frame for _, frame in pairs]}
        )


class VividMedProcessor(ProcessorMixin):
    """The image processor and the tokenizer of a model, saved and loaded with it."""

    def __init__(
        self, image_processor: VividMedImageProcessor, tokenizer: PreTrainedTokenizerBase
    ) -> None:
        super().__init__(image_processor, tokenizer)

    def __call__(
        self,
        images: Sequence[SourceImage],
        text: Sequence[str],
        history: Sequence[Sequence[Turn]] | None = None,
        *,
        grounded: bool = True,
    ) -> BatchFeature:
        """Make one batch of questions, each about one image.

        Args:
            images: one for each question.
            text: the questions.
            history: the earlier turns of each question; None: there are none.
            grounded: whether the answers are to be grounded.

        Returns:
            The arguments of `generate`: `input_ids`, `attention_mask` and `token_type_ids`, each
            (questions, tokens) and padded on the left, and `images`; also `frames`, which the
            caller removes.
        """
        prepared = self.image_processor(images)
        prompts = [
            build_prompt(
                turns,
                query,
                grid=image.grid,
                tokenizer=self.tokenizer,
                config=self._ids,
                grounded=grounded,
            )
            for image, query, turns in zip(
                prepared["images"], text, history or [()] * len(text), strict=True
            )
        ]
        return BatchFeature({**_left_padded(prompts, self._ids), **prepared})

    @property
    def _ids(self) -> VividMedConfig:
        """A configuration with the token ids of the tokenizer, as building sequences needs it."""
        id_of = self.tokenizer.convert_tokens_to_ids
        return VividMedConfig(
            pad_token_id=self.tokenizer.pad_token_id,
            bos_token_id=self.tokenizer.bos_token_id,
            eos_token_id=self.tokenizer.eos_token_id,
            sys_token_id=id_of("<sys>"),
            usr_token_id=id_of("<usr>"),
            grd_token_id=id_of("<grd>"),
            ngrd_token_id=id_of("<ngrd>"),
            bop_token_id=id_of("<p>"),
            eop_token_id=id_of("</p>"),
            bonp_token_id=id_of("<np>"),
            eonp_token_id=id_of("</np>"),
        )


def _left_padded(prompts: Sequence[TokenSequence], config: VividMedConfig) -> dict[str, Tensor]:
    longest = max(len(prompt.input_ids) for prompt in prompts)

    def rows(tensors: Sequence[Tensor], padding: int) -> Tensor:
        # On the left, because generation appends tokens on the right.
        missing = [longest - len(tensor) for tensor in tensors]
        return torch.stack(
            [pad(tensor, (n, 0), value=padding) for tensor, n in zip(tensors, missing, strict=True)]
        )

    assert config.pad_token_id is not None  # noqa: S101
    ids = [prompt.input_ids for prompt in prompts]
    return {
        "input_ids": rows(ids, config.pad_token_id),
        "attention_mask": rows([torch.ones_like(tensor) for tensor in ids], 0),
        "token_type_ids": rows([prompt.token_types for prompt in prompts], 0),
    }


AutoConfig.register(VividMedConfig.model_type, VividMedConfig, exist_ok=True)
AutoImageProcessor.register(
    VividMedConfig, image_processor_classes={"pil": VividMedImageProcessor}, exist_ok=True
)
AutoProcessor.register(VividMedConfig, VividMedProcessor, exist_ok=True)
