"""The hidden states of phrases, which prompt the localizer (the paper's section 3.3)."""

from __future__ import annotations

from collections.abc import Sequence

from torch import Tensor

from model.config import VividMedConfig


def phrase_ends(input_ids: Tensor, config: VividMedConfig) -> Tensor:
    """Find the closing brackets of complete phrases in one text.

    A pair is a `<p>` whose next bracket is `</p>`, as in `model.data.brackets`.

    Args:
        input_ids: (tokens,).
        config: has the ids of the brackets.

    Returns:
        (phrases,) positions of `</p>`, in reading order.
    """
    opening, closing = input_ids == config.bop_token_id, input_ids == config.eop_token_id
    brackets = (opening | closing).nonzero().squeeze(1)
    paired = opening[brackets[:-1]] & closing[brackets[1:]]
    return brackets[1:][paired]


def phrase_states(
    hidden: Tensor, input_ids: Tensor, lengths: Sequence[int], config: VividMedConfig
) -> list[Tensor]:
    """Select the hidden state of each phrase.

    It is the state of `</p>`, as in the paper, or of the token before it, which predicts it, as in
    the released code: `config.prompt_state`.

    Args:
        hidden: (tokens, hidden), the last layer's states after the final norm.
        input_ids: (tokens,).
        lengths: tokens of each of the packed samples.
        config: configuration of the model.

    Returns:
        (phrases, hidden) for each sample, in reading order.
    """
    back = 1 if config.prompt_state == "before_close" else 0
    return [
        states[phrase_ends(ids, config) - back]
        for states, ids in zip(
            hidden.split(list(lengths)), input_ids.split(list(lengths)), strict=True
        )
    ]
