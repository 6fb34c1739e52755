"""The tokenizers: texts survive, special tokens have the ids that the model expects."""

import pytest
from hypothesis import given
from hypothesis import strategies as st
from sentencepiece import SentencePieceProcessor, SentencePieceTrainer

from model.config import preset
from model.data.tokenizer import MARKERS, load_tokenizer, train_tokenizer
from tests.model.examples import ANSWERS, REPORT, tiny, tokenizer


def ids(text, of=None):
    return (of or tokenizer())(text, add_special_tokens=False).input_ids


@given(st.text())
def test_any_text_comes_back(text):
    assert tokenizer().decode(ids(text)) == text


def test_special_tokens_have_the_ids_of_the_preset():
    config = preset("tiny")
    names = ["sys", "usr", "grd", "ngrd", "bop", "eop", "bonp", "eonp"]
    wanted = [getattr(config, f"{name}_token_id") for name in names]
    assert [ids(marker) for marker in MARKERS] == [[number] for number in wanted]
    special = tokenizer()
    assert (special.pad_token_id, special.bos_token_id, special.eos_token_id) == (0, 1, 2)


def test_a_phrase_is_tokenized_as_without_brackets():
    brackets = {tiny().bop_token_id, tiny().eop_token_id}
    with_brackets = ids("The<p> heart</p> is large.")
    assert [i for i in with_brackets if i not in brackets] == ids("The heart is large.")


def test_training_is_deterministic_and_survives_a_folder(tmp_path):
    again = train_tokenizer([*ANSWERS, "What is seen?", "Which modality?"], 320)
    assert again.get_vocab() == tokenizer().get_vocab()
    again.save_pretrained(tmp_path)
    loaded = load_tokenizer(tmp_path, preset("tiny"))
    assert ids(REPORT, loaded) == ids(REPORT)
    assert loaded.decode(ids(REPORT)) == REPORT
    assert loaded.padding_side == "left"


@pytest.fixture(scope="module")
def vicuna(tmp_path_factory):
    """A folder with a small SentencePiece model of Vicuna's kind."""
    folder = tmp_path_factory.mktemp("vicuna")
    SentencePieceTrainer.train(
        sentence_iterator=iter(["the heart is large", "left pleural effusion is present"] * 20),
        model_prefix=str(folder / "tokenizer"),
        vocab_size=300,
        model_type="bpe",
        byte_fallback=True,
        normalization_rule_name="identity",
        remove_extra_whitespaces=False,
        minloglevel=2,
    )
    return folder


def test_the_markers_follow_the_words_of_vicuna(vicuna):
    loaded = load_tokenizer(vicuna)
    assert [ids(marker, loaded) for marker in MARKERS] == [[300 + i] for i in range(8)]
    assert loaded.pad_token_id == 0
    written = "the<p> heart</p> is large"
    assert loaded.decode(ids(written, loaded)) == written


@pytest.fixture(scope="module")
def both(vicuna):
    """Ours and SentencePiece's own reading of the folder."""
    model = SentencePieceProcessor(model_file=str(vicuna / "tokenizer.model"))
    return load_tokenizer(vicuna), model


# A space in front is the one that SentencePiece adds for transformers, and a second one for itself.
WORDS = st.text(st.characters(exclude_characters="▁\0<", exclude_categories=["Cs"]), min_size=1)


@given(WORDS.filter(lambda text: not text.startswith(" ")))
def test_vicunas_words_are_those_of_sentencepiece(both, text):
    ours, theirs = both
    assert ids(text, ours) == theirs.encode(text)
    assert ours.decode(ids(text, ours)) == text


def test_a_saved_vicuna_keeps_its_ids(vicuna, tmp_path):
    first = load_tokenizer(vicuna)
    first.save_pretrained(tmp_path)
    again = load_tokenizer(tmp_path)
    assert again.get_vocab() == first.get_vocab()


def test_a_tokenizer_of_another_model_is_refused(vicuna):
    with pytest.raises(ValueError, match="gives <sys> the id 300, the model expects 4"):
        load_tokenizer(vicuna, preset("tiny"))


def test_an_empty_folder_is_refused(tmp_path):
    with pytest.raises(FileNotFoundError, match=r"no tokenizer\.json or tokenizer\.model"):
        load_tokenizer(tmp_path)
