"""Tokenizers: Vicuna's with eight added tokens, and a small one trained on a few texts."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path

from sentencepiece import SentencePieceProcessor
from tokenizers import AddedToken, Tokenizer
from tokenizers.decoders import ByteLevel as ByteLevelDecoder
from tokenizers.models import BPE
from tokenizers.pre_tokenizers import ByteLevel
from tokenizers.trainers import BpeTrainer
from transformers import (
    AutoTokenizer,
    LlamaTokenizer,
    PreTrainedTokenizerBase,
    PreTrainedTokenizerFast,
)
from transformers.tokenization_utils_base import generate_merges

from model.config import VividMedConfig
from model.data.brackets import ABSENT_CLOSE, ABSENT_OPEN, CLOSE, OPEN

UNKNOWN, BEGIN, END, RESERVED = "<unk>", "<s>", "</s>", "<reserved>"
MARKERS = ("<sys>", "<usr>", "<grd>", "<ngrd>", OPEN, CLOSE, ABSENT_OPEN, ABSENT_CLOSE)
"""The tokens that VividMed adds, in the order of their ids in the released model."""


def train_tokenizer(texts: Iterable[str], vocab_size: int) -> PreTrainedTokenizerFast:
    """Train a byte-level BPE tokenizer on a few texts; the same texts give the same tokenizer.

    The special tokens have the ids of the `tiny` preset. Decoding restores any text exactly, also
    one that differs from the training texts.

    Args:
        texts: training texts, with or without brackets.
        vocab_size: the largest size; 12 special tokens and the 256 bytes are always included.
    """
    special = [UNKNOWN, BEGIN, END, RESERVED, *MARKERS]
    tokenizer = Tokenizer(BPE())
    # The markers are special tokens during training too, so that no merge includes a part of them.
    tokenizer.add_special_tokens([AddedToken(token, normalized=False) for token in special])
    tokenizer.pre_tokenizer = ByteLevel(add_prefix_space=False)
    tokenizer.decoder = ByteLevelDecoder()
    trainer = BpeTrainer(
        vocab_size=vocab_size,
        special_tokens=special,
        initial_alphabet=ByteLevel.alphabet(),
        show_progress=False,
    )
    tokenizer.train_from_iterator(texts, trainer)
    return PreTrainedTokenizerFast(
        tokenizer_object=tokenizer,
        unk_token=UNKNOWN,
        pad_token=UNKNOWN,
        bos_token=BEGIN,
        eos_token=END,
        extra_special_tokens=list(MARKERS),
        padding_side="left",
        clean_up_tokenization_spaces=False,
    )


def load_tokenizer(
    path: str | Path, config: VividMedConfig | None = None
) -> PreTrainedTokenizerBase:
    """Load a saved tokenizer, or Vicuna's with the tokens of VividMed added.

    Args:
        path: a folder with `tokenizer.json` or Vicuna's `tokenizer.model`.
        config: configuration of the model, to compare the ids with; None: not compared.

    Raises:
        FileNotFoundError: if the folder holds neither file.
        ValueError: if the id of a special token differs from `config`.
    """
    folder = Path(path)
    tokenizer: PreTrainedTokenizerBase
    if (folder / "tokenizer.json").is_file():
        tokenizer = AutoTokenizer.from_pretrained(folder, local_files_only=True)
    elif (folder / "tokenizer.model").is_file():
        tokenizer = _from_sentencepiece(folder / "tokenizer.model")
    else:
        raise FileNotFoundError(
            f"{folder} has no tokenizer.json or tokenizer.model: give the folder of a saved"
            " VividMed model or of lmsys/vicuna-7b-v1.5"
        )
    missing = [token for token in MARKERS if token not in tokenizer.get_vocab()]
    tokenizer.add_special_tokens(
        {"extra_special_tokens": missing}, replace_extra_special_tokens=False
    )
    if tokenizer.pad_token is None:
        tokenizer.pad_token = tokenizer.unk_token
    if config is not None:
        _check(tokenizer, config, folder)
    return tokenizer


def _from_sentencepiece(file: Path) -> LlamaTokenizer:
    # transformers needs protobuf to read this file, and would order the merges by id. Runs of
    # spaces have small ids but low scores, and would be merged before the words that follow them.
    model = SentencePieceProcessor(model_file=str(file))
    pieces = [model.id_to_piece(number) for number in range(len(model))]
    vocabulary = {piece: number for number, piece in enumerate(pieces)}
    scores = {piece: model.get_score(number) for number, piece in enumerate(pieces)}
    return LlamaTokenizer(vocab=vocabulary, merges=generate_merges(vocabulary, scores))


def _check(tokenizer: PreTrainedTokenizerBase, config: VividMedConfig, folder: Path) -> None:
    expected = {
        BEGIN: config.bos_token_id,
        END: config.eos_token_id,
        "<sys>": config.sys_token_id,
        "<usr>": config.usr_token_id,
        "<grd>": config.grd_token_id,
        "<ngrd>": config.ngrd_token_id,
        OPEN: config.bop_token_id,
        CLOSE: config.eop_token_id,
        ABSENT_OPEN: config.bonp_token_id,
        ABSENT_CLOSE: config.eonp_token_id,
    }
    for token, wanted in expected.items():
        found = tokenizer.convert_tokens_to_ids(token)
        if found != wanted:
            raise ValueError(
                f"the tokenizer in {folder} gives {token} the id {found}, the model expects"
                f" {wanted}: use the tokenizer of the model's training"
            )
