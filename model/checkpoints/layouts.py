r"""The layouts that checkpoints of our model's parts are published in, each declared once.

- CogVLM: `cogvlm-chat-hf` (Wang et al. 2023), the vision language model for one square 2D image.
- SegVol: `pytorch_model.bin` (Du et al., NeurIPS 2024), a promptable network for CT.
- aligned: what the released VividMed code trains of SegVol before its first stage.
- SAM: Meta's `sam_vit_*.pth` (Kirillov et al., ICCV 2023), of which the image encoder is used: a
  start for training, since most of its blocks attend within windows and ours to the whole image.
- VividMed: our own, whose names are those of the released code.
- LoRA adapters of PEFT, as the authors released theirs: updates and replacements of our tensors.
"""

from __future__ import annotations

import re
from functools import partial

from model.checkpoints import conversions as to
from model.checkpoints.transfer import Layout, Rule
from model.network.localization.localizer import RELEASED_BUT_UNUSED

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
        Rule(
            r"(model\.embed_tokens|lm_head)\.weight",
            r"\1.weight",
            to.add_rows,
            "new tokens get the mean of the old ones",
        ),
        Rule(
            r"(model\.vision\.patch_embedding\.cls_embedding)",
            r"\1.weight",
        ),
        Rule(
            r"(model\.vision\.patch_embedding\.proj\.weight)",
            r"\1",
            to.resize_kernel_2d,
            "resampled in plane, spread over depth",
        ),
        Rule(
            r"(model\.vision\.patch_embedding)\.position_embedding\.weight",
            r"\1.cls_pos_embed.weight",
            to.class_position,
            "the class token's row",
        ),
        Rule(
            r"(model\.vision\.patch_embedding\.position_embedding\.weight)",
            r"\1",
            to.patch_positions,
            "the patches' rows, resampled in plane, repeated along depth",
        ),
    ),
    unused={r".*\.rotary_emb\.inv_freq": "follows from the configuration"},
    absent={
        NO_LOCALIZER: "the localiser has a checkpoint of its own",
        r"vg_proj\..*": "VividMed's own training makes it",
    },
)

FEWER_MASK_TOKENS = Rule(
    r"(mask_decoder\.mask_tokens\.weight)",
    r"\1",
    to.keep_rows,
    "rows beyond the checkpoint's stay as initialised",
)

SEGVOL = Layout(
    name="SegVol",
    part="localizer",
    signature="model.image_encoder.patch_embedding.patch_embeddings.1.weight",
    prefix="model.",
    rules=(
        Rule(
            r"(image_encoder\.patch_embedding)\.patch_embeddings\.1\.weight",
            r"\1.proj.weight",
            to.segvol_kernel,
            "rows laid out as a kernel, resampled, shared by three channels",
        ),
        Rule(r"(image_encoder\.patch_embedding)\.patch_embeddings\.1\.bias", r"\1.proj.bias"),
        Rule(
            r"(image_encoder\.patch_embedding\.position_embeddings)",
            r"\1.weight",
            to.segvol_positions,
            "rows laid out as a grid, resampled",
        ),
        Rule(
            r"(mask_decoder\.output_upscaling\.1\.(?:weight|bias))",
            r"\1",
            to.mean_over_space,
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
    name="aligned localiser of the released code",
    part="localizer",
    signature="sam.image_encoder.patch_embedding.proj.weight",
    prefix="sam.",
    rules=(FEWER_MASK_TOKENS,),
    unused={
        # Newer releases of MONAI give every block layers for a second input, which there is not.
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
        Rule(
            r"image_encoder\.patch_embed\.proj\.weight",
            "image_encoder.patch_embedding.proj.weight",
            to.sam_kernel,
            "spread over depth, pixel normalisation folded in",
        ),
        Rule(
            r"image_encoder\.patch_embed\.proj\.bias",
            "image_encoder.patch_embedding.proj.bias",
            to.sam_bias,
            "pixel normalisation folded in",
            needs=("image_encoder.patch_embed.proj.weight",),
        ),
        Rule(
            r"image_encoder\.pos_embed",
            "image_encoder.patch_embedding.position_embeddings.weight",
            to.sam_positions,
            "resampled in plane, repeated along depth",
        ),
        Rule(r"(image_encoder\.blocks\.\d+)\.attn\.proj\.(.*)", r"\1.attn.out_proj.\2"),
        Rule(r"(image_encoder\.blocks\.\d+)\.mlp\.lin([12])\.(.*)", r"\1.mlp.linear\2.\3"),
    ),
    unused={
        r"image_encoder\.blocks\.\d+\.attn\.rel_pos_[hw]": "positions are absolute here",
        r"image_encoder\.neck\..*": "the decoder is as wide as the encoder here",
        r"(prompt_encoder|mask_decoder)\..*": "SAM's decoder is 2D and narrower than ours",
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
"""In the order in which they are recognised: our own model has the keys of the aligned ones."""


def adapter_layout(scale: float) -> Layout:
    """Return the layout of PEFT's LoRA adapters whose updates are weighted by `scale`."""
    return Layout(
        name="LoRA adapter",
        part="model",
        signature="",
        prefix="base_model.model.",
        rules=(
            Rule(
                r"(.+)\.lora_A\.weight",
                r"\1.weight",
                partial(to.add_low_rank, scale=scale),
                "low-rank update added",
                needs=(r"\1.lora_B.weight",),
            ),
        ),
        unused={r".+\.lora_B\.weight": "taken together with its lora_A"},
        absent={".*": "not in the adapter: stays as it is"},
    )
