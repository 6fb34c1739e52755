r"""The layouts of published checkpoints of the model or its parts, each declared once.

- CogVLM: `cogvlm-chat-hf` (Wang et al. 2023), the vision language model for one square 2D image.
- SegVol: `pytorch_model.bin` (Du et al., NeurIPS 2024), a promptable network for CT.
- aligned: SegVol after the training that the released VividMed code does before its first stage.
- SAM: Meta's `sam_vit_*.pth` (Kirillov et al., ICCV 2023), of which only the image encoder is used.
  It needs further training: most of its blocks attend within windows, here to the whole image.
- VividMed: checkpoints of this model, with the key names of the released code.
- LoRA adapters of PEFT, as the authors released them: updates and replacements of tensors.
"""

from __future__ import annotations

import re
from functools import partial

from model.checkpoints import conversions as convert
from model.checkpoints.transfer import KeyRule, Layout
from model.network.localization.localizer import RELEASED_BUT_UNUSED

# Patterns of keys of the model that a layout never has.
NO_LOCALIZER = r"(sam|isam_model)\..*"
NO_HEADS = {
    r"(box|disc)_head\..*": "the layout has no instance branch",
    r"mask_decoder\.txt_align_upscaled_embedding\..*": "the layout has no text similarity",
}
UNUSED_OF_RELEASED = {
    re.escape(prefix) + ".*": reason for prefix, reason in RELEASED_BUT_UNUSED.items()
}

COGVLM = Layout(
    name="CogVLM",
    part="model",
    signature="model.vision.patch_embedding.cls_embedding",
    rules=(
        KeyRule(
            r"(model\.embed_tokens|lm_head)\.weight",
            r"\1.weight",
            convert.add_rows,
            "new tokens get the mean of the old ones",
        ),
        KeyRule(
            r"(model\.vision\.patch_embedding\.cls_embedding)",
            r"\1.weight",
        ),
        KeyRule(
            r"(model\.vision\.patch_embedding\.proj\.weight)",
            r"\1",
            convert.resize_kernel_2d,
            "resampled in plane, spread over depth",
        ),
        KeyRule(
            r"(model\.vision\.patch_embedding)\.position_embedding\.weight",
            r"\1.cls_pos_embed.weight",
            convert.class_position,
            "the row of the class token",
        ),
        KeyRule(
            r"(model\.vision\.patch_embedding\.position_embedding\.weight)",
            r"\1",
            convert.patch_positions,
            "the rows of the patches, resampled in plane, repeated along depth",
        ),
    ),
    unused={r".*\.rotary_emb\.inv_freq": "follows from the configuration"},
    absent={
        NO_LOCALIZER: "the localizer has a checkpoint of its own",
        r"vg_proj\..*": "only VividMed's training makes it",
    },
)

FEWER_MASK_TOKENS = KeyRule(
    r"(mask_decoder\.mask_tokens\.weight)",
    r"\1",
    convert.keep_rows,
    "rows beyond the checkpoint's stay as initialized",
)

SEGVOL = Layout(
    name="SegVol",
    part="localizer",
    signature="model.image_encoder.patch_embedding.patch_embeddings.1.weight",
    prefix="model.",
    rules=(
        KeyRule(
            r"(image_encoder\.patch_embedding)\.patch_embeddings\.1\.weight",
            r"\1.proj.weight",
            convert.segvol_kernel,
            "rows laid out as a kernel, resampled, shared by three channels",
        ),
        KeyRule(r"(image_encoder\.patch_embedding)\.patch_embeddings\.1\.bias", r"\1.proj.bias"),
        KeyRule(
            r"(image_encoder\.patch_embedding\.position_embeddings)",
            r"\1.weight",
            convert.segvol_positions,
            "rows laid out as a grid, resampled",
        ),
        KeyRule(
            r"(mask_decoder\.output_upscaling\.1\.(?:weight|bias))",
            r"\1",
            convert.mean_over_space,
            "mean over space",
        ),
        FEWER_MASK_TOKENS,
    ),
    unused={
        r"text_encoder\..*": "phrases are prompted by the language model",
        r"mask_decoder\.iou_prediction_head\..*": "no mask is chosen among several",
        r"mask_decoder\.output_hypernetworks_mlps\.[23]\..*": "there is one semantic mask",
        **UNUSED_OF_RELEASED,
    },
    absent=NO_HEADS,
)

ALIGNED = Layout(
    name="aligned localizer of the released code",
    part="localizer",
    signature="sam.image_encoder.patch_embedding.proj.weight",
    prefix="sam.",
    rules=(FEWER_MASK_TOKENS,),
    unused={
        # Newer releases of MONAI add cross-attention to every block, which the encoder never uses.
        r"image_encoder\.blocks\.\d+\.(norm_)?cross_attn\..*": "the encoder has one input",
        **UNUSED_OF_RELEASED,
    },
    absent=NO_HEADS,
)

SAM = Layout(
    name="SAM",
    part="localizer",
    signature="image_encoder.patch_embed.proj.weight",
    rules=(
        KeyRule(
            r"image_encoder\.patch_embed\.proj\.weight",
            "image_encoder.patch_embedding.proj.weight",
            convert.sam_kernel,
            "spread over depth, pixel normalization folded in",
        ),
        KeyRule(
            r"image_encoder\.patch_embed\.proj\.bias",
            "image_encoder.patch_embedding.proj.bias",
            convert.sam_bias,
            "pixel normalization folded in",
            needs=("image_encoder.patch_embed.proj.weight",),
        ),
        KeyRule(
            r"image_encoder\.pos_embed",
            "image_encoder.patch_embedding.position_embeddings.weight",
            convert.sam_positions,
            "resampled in plane, repeated along depth",
        ),
        KeyRule(r"(image_encoder\.blocks\.\d+)\.attn\.proj\.(.*)", r"\1.attn.out_proj.\2"),
        KeyRule(r"(image_encoder\.blocks\.\d+)\.mlp\.lin([12])\.(.*)", r"\1.mlp.linear\2.\3"),
    ),
    unused={
        r"image_encoder\.blocks\.\d+\.attn\.rel_pos_[hw]": "positions are absolute here",
        r"image_encoder\.neck\..*": "the decoder is as wide as the encoder here",
        r"(prompt_encoder|mask_decoder)\..*": "SAM's decoder is 2D and narrower",
    },
    absent={
        r"image_encoder\.norm\..*": "SAM's encoder ends in its neck",
        r"(prompt_encoder|mask_decoder|box_head|disc_head)\..*": "only the encoder is taken",
    },
)

VIVIDMED = Layout(
    name="VividMed",
    part="model",
    signature="model.vision.patch_embedding.cls_embedding.weight",
)

LAYOUTS = (COGVLM, VIVIDMED, SEGVOL, ALIGNED, SAM)
"""In the order of recognition: VividMed comes before aligned, whose keys it also has."""


def adapter_layout(scale: float) -> Layout:
    """Return the layout of PEFT's LoRA adapters whose updates are weighted by `scale`."""
    return Layout(
        name="LoRA adapter",
        part="model",
        signature="",
        prefix="base_model.model.",
        rules=(
            KeyRule(
                r"(.+)\.lora_A\.weight",
                r"\1.weight",
                partial(convert.add_low_rank, scale=scale),
                "low-rank update added",
                needs=(r"\1.lora_B.weight",),
            ),
        ),
        unused={r".+\.lora_B\.weight": "read together with its lora_A"},
        absent={".*": "not in the adapter: unchanged"},
    )
