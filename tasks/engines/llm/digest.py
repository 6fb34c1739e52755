"""Digests that name requests, answers and prompts."""

from __future__ import annotations

import hashlib
import json
from typing import Any


def digest(*values: Any) -> str:
    """A 128-bit BLAKE2 digest of JSON values, in hexadecimal: equal values have equal digests."""
    content = json.dumps(values, sort_keys=True, ensure_ascii=False, separators=(",", ":"))
    return hashlib.blake2b(content.encode(), digest_size=16).hexdigest()
