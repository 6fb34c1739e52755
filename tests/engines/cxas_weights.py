"""Random weights in the layout of CXAS's, for a Python that has it.

python cxas_weights.py FILE
"""

import os
import sys

import torch

os.environ["CXAS_NO_WELCOME"] = "1"


def main(file):
    from cxas.models.UNet.backbone_unet import BackboneUNet

    torch.manual_seed(5)
    torch.save({"model": BackboneUNet("UNet_ResNet50_default", 159).state_dict()}, file)


main(sys.argv[1])
