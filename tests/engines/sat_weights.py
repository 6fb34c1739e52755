"""Random weights in the layout of SAT-Nano's, for a Python that has its environment.

    python sat_weights.py SOURCE FOLDER

Writes the network, the text encoder, and a language model of two small layers in the place of
BioLORD, whose 12 layers have the same names.
"""

import os
import sys
from importlib import import_module
from pathlib import Path

import torch
from transformers import BertConfig, BertModel, BertTokenizerFast

SOURCE, FOLDER = Path(sys.argv[1]), Path(sys.argv[2])
sys.path[:0] = [str(SOURCE / "model" / "dynamic-network-architectures-main"), str(SOURCE)]
os.environ["RANK"] = "0"


def main():
    encoder = import_module("model.knowledge_encoder").Knowledge_Encoder
    maskformer = import_module("model.maskformer").Maskformer
    torch.manual_seed(1)
    language = FOLDER / "biolord"
    language.mkdir()
    letters = [chr(code) for code in range(ord("a"), ord("z") + 1)]
    words = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", *letters, *("##" + c for c in letters)]
    (language / "vocab.txt").write_text("\n".join(words))
    BertTokenizerFast(vocab_file=str(language / "vocab.txt")).save_pretrained(language)
    sizes = {"hidden_size": 768, "num_hidden_layers": 2, "intermediate_size": 256}
    config = BertConfig(vocab_size=len(words), **sizes)
    BertModel(config).save_pretrained(language)
    for name, network in {
        "SAT_Nano.pth": maskformer("UNET", [64, 64, 32], [32, 32, 32], False),
        "text_encoder.pth": encoder(str(language)),
    }.items():
        state = {f"module.{key}": value for key, value in network.state_dict().items()}
        torch.save({"model_state_dict": state}, FOLDER / name)


main()
