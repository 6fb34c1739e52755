"""Whether all of OpenI, the showcase and the model's outputs are still what was frozen.

    python -m benchmarks.golden                 # build both, compare: exit code 1 if they differ
    python -m benchmarks.golden --store FOLDER  # compare a store that was built with the defaults
    python -m benchmarks.golden --renew         # show what differs, then freeze what there is now

OpenI is frozen without its images, which are a download of their own: with `NLMCXR_png` in the
inputs its tags have boxes, and this check does not fit.
"""

from __future__ import annotations

import argparse
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path

from benchmarks.golden.difference import compare, figures, show
from benchmarks.golden.freezing import DATASETS, FOLDER, Frozen, Words, freeze, load, write
from benchmarks.golden.model_outputs import differing, load_figures, measure, write_figures
from benchmarks.targets import judge


def main(arguments: Sequence[str] | None = None) -> int:
    """Compare, and renew if asked; 1 if something differs and is not renewed."""
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.golden",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--renew", action="store_true", help="freeze what there is now")
    parser.add_argument("--store", type=Path, help="a folder with openi and showcase")
    given = parser.parse_args(arguments)
    new, words = _whole(given.store) if given.store else _built()
    old = load() if (FOLDER / "digests.json").exists() else Frozen({}, {}, {}, {}, {})
    changes = compare(old, new)
    show(changes, words)
    of_model = measure()
    different = differing(load_figures(), of_model)
    if different:
        print(f"\n{len(different)} outputs of the model changed", *different, sep="\n  ")
    if given.renew:
        write(new)
        write_figures(of_model)
        print(f"\nfrozen anew in {FOLDER}: commit it with the reason of each difference")
        return 0
    return judge("golden", figures(changes) | {"outputs of the model that differ": len(different)})


def _built() -> tuple[Frozen, Words]:
    with tempfile.TemporaryDirectory() as folder:
        command = Path(sys.executable).with_name("vividmed")
        subprocess.run([command, "build", *DATASETS, "--store", folder], check=True)
        return _whole(Path(folder))


def _whole(store: Path) -> tuple[Frozen, Words]:
    try:
        frozen, words = freeze(store)
    except FileNotFoundError as error:
        sys.exit(f"error: {error}")
    if missing := [dataset for dataset in DATASETS if not frozen.of_dataset(dataset).reports]:
        sys.exit(f"{store} has no reports of {', '.join(missing)}: build {' '.join(DATASETS)}")
    return frozen, words


if __name__ == "__main__":
    sys.exit(main())
