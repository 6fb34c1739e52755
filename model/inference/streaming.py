"""Text that appears while it is generated."""

from __future__ import annotations

from collections.abc import Callable

from transformers import PreTrainedTokenizerBase, TextStreamer


class Streamer(TextStreamer):
    """Hands over whole words of one answer, without brackets, as soon as they are there.

    For one image at a time: the texts of a batch grow side by side, and nobody can read them so.

    Args:
        tokenizer: of the model.
        write: takes the next piece of the text.
    """

    def __init__(self, tokenizer: PreTrainedTokenizerBase, write: Callable[[str], None]) -> None:
        super().__init__(tokenizer, skip_prompt=True, skip_special_tokens=True)
        self._write = write

    def on_finalized_text(self, text: str, stream_end: bool = False) -> None:  # noqa: ARG002
        """Take a piece of the text; transformers calls it."""
        if text:
            self._write(text)
