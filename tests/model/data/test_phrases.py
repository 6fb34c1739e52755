"""Where the phrases of a text end, and which hidden state stands for each."""

import pytest
import torch

from model.data.brackets import parse
from model.data.phrases import phrase_ends, phrase_states
from tests.model.examples import tiny, tokenizer


def ids(text):
    return torch.tensor(tokenizer()(text, add_special_tokens=False).input_ids, dtype=torch.long)


@pytest.mark.parametrize(
    "text",
    [
        "The<p> heart</p> and the<p> left lung</p>.",
        "the<p> left<p> lung</p> is</p>",
        "a</p> b<p>",
        "<p></p><p> x</p>",
        "<p> a<p> b<p> c</p></p></p>",
        "nothing",
        "",
    ],
)
def test_tokens_have_the_phrases_of_the_text(text):
    ends = phrase_ends(ids(text), tiny())
    assert len(ends) == len(parse(text)[1])
    assert (ids(text)[ends] == tiny().eop_token_id).all()


def test_states_are_those_of_the_bracket_or_of_what_predicts_it():
    texts = [ids("The<p> heart</p> and<p> lung</p>."), ids("Nothing."), ids("<p> aorta</p>")]
    together = torch.cat(texts)
    hidden = torch.arange(len(together)).float().unsqueeze(1)
    lengths = [len(text) for text in texts]
    closing = (together == tiny().eop_token_id).nonzero().squeeze(1).float()
    at = phrase_states(hidden, together, lengths, tiny())
    before = phrase_states(hidden, together, lengths, tiny(prompt_state="before_close"))
    assert [len(of) for of in at] == [2, 0, 1]
    assert torch.equal(torch.cat(at).squeeze(1), closing)
    assert torch.equal(torch.cat(before).squeeze(1), closing - 1)
