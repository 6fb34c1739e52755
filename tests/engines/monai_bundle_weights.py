"""A small bundle in the layout of wholeBody_ct_segmentation, for a Python that has MONAI.

python monai_bundle_weights.py FOLDER
"""

import json
import sys
from pathlib import Path

import torch
from monai.networks.nets import SegResNet

NETWORK = {
    "spatial_dims": 3,
    "in_channels": 1,
    "out_channels": 105,
    "init_filters": 8,
    "blocks_down": [1, 1],
    "blocks_up": [1],
    "dropout_prob": 0.2,
}
CHANNELS = {"0": "background", "7": "aorta", "44": "heart_myocardium", "45": "heart_atrium_left"}


def main(folder):
    for name in ("configs", "models"):
        (folder / name).mkdir()
    definition = {"network_def": {"_target_": "SegResNet", **NETWORK}}
    (folder / "configs" / "inference.json").write_text(json.dumps(definition))
    rest = {str(n): f"structure_{n}" for n in range(105) if str(n) not in CHANNELS}
    described = {"network_data_format": {"outputs": {"pred": {"channel_def": CHANNELS | rest}}}}
    (folder / "configs" / "metadata.json").write_text(json.dumps(described))
    torch.manual_seed(4)
    torch.save(SegResNet(**NETWORK).state_dict(), folder / "models" / "model_lowres.pt")


main(Path(sys.argv[1]))
