"""Counts tokens as Llama 3 does: a JSON string a line in, a number a line out.

Runs in an environment of its own (see `llm_tokens.py`), which has Meta's package `llama-models`
with the model's vocabulary (Llama 3 Community License).
"""

import json
import sys

from llama_models.llama3.tokenizer import Tokenizer  # type: ignore[import-not-found]

tokenizer = Tokenizer.get_instance()
for line in sys.stdin:
    print(len(tokenizer.encode(json.loads(line), bos=False, eos=False)), flush=True)
