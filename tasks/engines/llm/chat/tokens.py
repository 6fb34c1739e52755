"""Counts tokens: by a model's own tokenizer where there is one, else by a stated rule of thumb."""

from __future__ import annotations

import re
from collections.abc import Callable
from functools import lru_cache
from pathlib import Path

from tasks.engines.llm.chat.engine import ChatRequest, EngineError

TokenCounter = Callable[[str], int]

TOKENS_PER_MESSAGE = 5
"""What a chat template puts around a message; Llama 3: three for the header, line ends, the end."""

_PIECE = re.compile(r"[A-Za-z]+|\d{1,3}|\n+|[^\w\s]+|[^\W\d_]+|_+")
_LETTERS_PER_PIECE = 6
"""Fitted to Llama 3: within 1 % on report text, 3 % too few on JSON of it."""


def approximate_tokens(text: str) -> int:
    """About the tokens of Llama 3; how near is measured by `benchmarks.llm_tokens`."""
    return sum(-(-len(piece) // _LETTERS_PER_PIECE) for piece in _PIECE.findall(text))


def token_counter(tokenizer: Path | None = None) -> TokenCounter:
    """Counts with a `tokenizer.json`, or approximately when none is given.

    Raises:
        EngineError: if the file cannot be read, or the package `tokenizers` is not installed.
    """
    if tokenizer is None:
        return lru_cache(maxsize=1 << 16)(approximate_tokens)
    try:
        from tokenizers import Tokenizer  # type: ignore[import-not-found, unused-ignore]

        loaded = Tokenizer.from_file(str(tokenizer))
    except ModuleNotFoundError as error:
        raise EngineError(
            "Counting with a tokenizer needs the package `tokenizers`: pip install tokenizers"
        ) from error
    except Exception as error:  # the library raises no narrower class
        raise EngineError(
            f"The tokenizer {tokenizer} cannot be read ({error}): name the model's tokenizer.json."
        ) from error
    return lru_cache(maxsize=1 << 16)(
        lambda text: len(loaded.encode(text, add_special_tokens=False))
    )


def request_tokens(request: ChatRequest, count: TokenCounter) -> tuple[int, int]:
    """Tokens of a request, and how many of them every request of its kind begins with."""
    costs = [TOKENS_PER_MESSAGE + count(message.content) for message in request.messages]
    return sum(costs) + TOKENS_PER_MESSAGE, sum(costs[:-1])
