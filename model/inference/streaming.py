"""Streaming of text during generation."""

from __future__ import annotations

from collections.abc import Callable

from transformers import PreTrainedTokenizerBase, TextStreamer


class Streamer(TextStreamer):
    """Passes on complete words of one answer, without brackets, as they are generated.

    For one image only: the answers of a batch would be interleaved.

    Args:
        tokenizer: tokenizer of the model.
        write: receives the next piece of the text.
    """

    def __init__(self, tokenizer: PreTrainedTokenizerBase, write: Callable[[str], None]) -> None:
        super().__init__(tokenizer, skip_prompt=True, skip_special_tokens=True)
        self._write = write

    def on_finalized_text(self, text: str, stream_end: bool = False) -> None:  # noqa: ARG002
        """Pass on a piece of the text; called by transformers."""
        if text:
            self._write(text)
