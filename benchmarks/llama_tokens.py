"""Counts tokens of Llama 3: one JSON string per input line, one count per output line.

Runs in a separate environment (see `llm_tokens.py`), which has Meta's package `llama-models`
with the model's vocabulary (Llama 3 Community License).
"""

import json
import sys

from llama_models.llama3.tokenizer import Tokenizer  # type: ignore[import-not-found]

tokenizer = Tokenizer.get_instance()
for line in sys.stdin:
    print(len(tokenizer.encode(json.loads(line), bos=False, eos=False)), flush=True)
