"""`make bench`: every measurement, one after the other, each in a process of its own.

Name some to run only those: `python -m benchmarks mask_codec text_steps`.
"""

from __future__ import annotations

import subprocess
import sys

BENCHMARKS = (
    "mask_codec",
    "text_steps",
    "hounsfield",
    "atlas",
    "orchestration",
    "llm_tokens",
    "llm_client",
)


def main() -> int:
    """Run them; the exit code tells whether all ran to their end."""
    chosen = sys.argv[1:] or BENCHMARKS
    codes = [
        subprocess.run([sys.executable, "-m", f"benchmarks.{name}"], check=False).returncode
        for name in chosen
    ]
    return max(codes)


if __name__ == "__main__":
    sys.exit(main())
