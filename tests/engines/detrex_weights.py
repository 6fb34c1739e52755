"""A small DINO with EVA-02 of detrex with random weights, for a Python that has its environment.

    python detrex_weights.py CONFIG FOLDER

CONFIG is dino_eva_02_vitdet_b_4attn_1024_lrd0p7_4scale_12ep.py. Writes `small.py`, that
configuration cut to two blocks and three layers, and its checkpoint, `model_final.pth`.
"""

import sys
from pathlib import Path

import torch
from detrex_worker import ONLY_IN_TRAINING, ONLY_ON_GPUS, stand_in

SMALL = """from detectron2.config import LazyConfig

model = LazyConfig.load({config!r}).model
model.backbone.net.depth = 2
model.backbone.net.window_block_indexes = [0]
model.backbone.net.img_size = 256
model.backbone.net.pretrain_img_size = 256
model.backbone.net.use_act_checkpoint = False
model.backbone.square_pad = 256
model.transformer.encoder.num_layers = 1
model.transformer.decoder.num_layers = 2
model.num_queries = 100
"""


def main(config, folder):
    for name in (*ONLY_ON_GPUS, *ONLY_IN_TRAINING):
        stand_in(name)
    from detectron2.config import LazyConfig, instantiate

    (folder / "small.py").write_text(SMALL.format(config=str(config)))
    model = LazyConfig.load(str(folder / "small.py")).model
    model.device = "cpu"
    model.num_classes = 21
    torch.manual_seed(2)
    torch.save({"model": instantiate(model).state_dict()}, folder / "model_final.pth")


main(Path(sys.argv[1]), Path(sys.argv[2]))
