"""The promptable localization network: from the prompt of a phrase to its mask and boxes.

SAM's design ("Segment Anything", ICCV 2023) for images of any depth. One network can have both
branches, as in the VividMed paper; the released code has two networks, one for masks (without box
heads) and one for boxes (its masks are not computed).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from torch import Tensor, nn

from model.config import LocalizerConfig
from model.data.inputs import ModelImage
from model.network.localization.image_encoder import ImageEncoder
from model.network.localization.mask_decoder import MaskDecoder
from model.network.localization.prompt_encoder import PromptEncoder

RELEASED_BUT_UNUSED = {
    "prompt_encoder.point_embeddings.": "nothing is prompted with points or boxes",
    "prompt_encoder.not_a_point_embed.": "nothing is prompted with points or boxes",
    "prompt_encoder.mask_downscaling.": "nothing is prompted with masks",
    "mask_decoder.output_hypernetworks_mlps.1.": "instances have boxes, not masks",
}
"""Parts of the released networks that are left out here: prefix of their keys and the reason."""


@dataclass(frozen=True)
class Localization:
    """Output for the P phrases of one image; None: not requested, or no such branch.

    mask_logits: (P, depth, height, width) of the prepared image.
    boxes: (P, K, 6), center and size as (z, y, x, depth, height, width) in shares of it.
    presence_logits: (P, K), whether the box is an instance.
    """

    mask_logits: Tensor | None = None
    boxes: Tensor | None = None
    presence_logits: Tensor | None = None


class Localizer(nn.Module):
    """The promptable localization network.

    Args:
        config: sizes of the network.
        num_instances: number of instance tokens, K.
        boxes: whether it has box heads.
    """

    def __init__(self, config: LocalizerConfig, *, num_instances: int, boxes: bool) -> None:
        super().__init__()
        hidden = config.hidden_size
        self.image_encoder = ImageEncoder(config)
        self.prompt_encoder = PromptEncoder(hidden)
        self.mask_decoder = MaskDecoder(config, num_instances)
        self.has_boxes = boxes
        if boxes:
            self.box_head = nn.Sequential(
                nn.Linear(hidden, hidden),
                nn.ReLU(),
                nn.Linear(hidden, hidden),
                nn.ReLU(),
                nn.Linear(hidden, 6),  # center and size
            )
            self.disc_head = nn.Sequential(
                nn.Linear(hidden, hidden), nn.ReLU(), nn.Linear(hidden, 1)
            )

    def forward(
        self,
        images: Sequence[ModelImage],
        prompts: Sequence[Tensor],
        *,
        masks: bool | Sequence[bool] = True,
        boxes: bool | Sequence[bool] = True,
    ) -> list[Localization]:
        """Localize the phrases of images of any sizes.

        Args:
            images: pixels 0 to 1, as prepared.
            prompts: for each image (P, hidden); an image with P = 0 is not encoded.
            masks: whether to compute masks, for all images or for each.
            boxes: whether to compute boxes, for all images or for each; ignored without box heads.
        """
        # Samples may share an image, which is encoded once.
        prompted = {
            id(image): image for image, phrases in zip(images, prompts, strict=True) if len(phrases)
        }
        features = dict(zip(prompted, self.image_encoder(list(prompted.values())), strict=True))
        with_masks = [masks] * len(images) if isinstance(masks, bool) else masks
        with_boxes = [boxes] * len(images) if isinstance(boxes, bool) else boxes
        return [
            self._localize(image, features[id(image)], phrases, masks=m, boxes=b and self.has_boxes)
            if len(phrases)
            else self._empty(image, masks=m, boxes=b and self.has_boxes)
            for image, phrases, m, b in zip(images, prompts, with_masks, with_boxes, strict=True)
        ]

    def _localize(
        self, image: ModelImage, features: Tensor, prompts: Tensor, *, masks: bool, boxes: bool
    ) -> Localization:
        no_mask, positions = self.prompt_encoder(image.grid.patches)
        semantic, instances, attended = self.mask_decoder(features + no_mask, positions, prompts)
        mask_logits = None
        if masks:
            mask_logits = self.mask_decoder.masks(semantic, attended, prompts, image.grid)
        if not boxes:
            return Localization(mask_logits)
        presence_logits = self.disc_head(instances).squeeze(-1)
        return Localization(mask_logits, self.box_head(instances).sigmoid(), presence_logits)

    def _empty(self, image: ModelImage, *, masks: bool, boxes: bool) -> Localization:
        like = self.mask_decoder.mask_tokens.weight
        mask_logits = like.new_empty(0, *image.grid.size) if masks else None
        if not boxes:
            return Localization(mask_logits)
        instances = len(like) - 1  # the first mask token is the semantic one
        return Localization(
            mask_logits, like.new_empty(0, instances, 6), like.new_empty(0, instances)
        )
