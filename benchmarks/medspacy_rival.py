"""medspaCy, which `text_steps` is compared with; runs in a separate environment.

Reads {"reports": [...], "rules": [[literal, target], ...]} from a file and prints, as JSON, the CPU
seconds for one pass of sentence splitter, target matcher and ConText, and the counts of assertions.
"""

import json
import sys
import time
import warnings
from collections import Counter
from pathlib import Path

warnings.filterwarnings("ignore")

import medspacy  # noqa: E402
from loguru import logger  # noqa: E402
from medspacy.ner import TargetRule  # noqa: E402


def main() -> None:
    """Measure one pass over the reports."""
    logger.remove()
    work = json.loads(Path(sys.argv[1]).read_text())
    pipeline = medspacy.load(
        enable=["medspacy_pyrush", "medspacy_target_matcher", "medspacy_context"]
    )
    matcher = pipeline.get_pipe("medspacy_target_matcher")
    matcher.add([TargetRule(literal, target) for literal, target in work["rules"]])

    started = time.process_time()
    found: Counter[str] = Counter()
    for report in work["reports"]:
        for entity in pipeline(report).ents:
            negated = entity._.is_negated
            found["absent" if negated else "possible" if entity._.is_uncertain else "present"] += 1
    print(json.dumps({"seconds": time.process_time() - started, "found": found}))


if __name__ == "__main__":
    main()
