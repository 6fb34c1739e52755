"""`make fuzz`: try many damaged inputs of each kind, and print how they ended.

Name some kinds to try only those: `python -m tests.fuzz "NIfTI volumes"`. A wrong input is
printed with what was done to it.
"""

import argparse
import faulthandler
import sys
import tempfile
import time
from pathlib import Path

from rich.console import Console
from rich.table import Table

from tests.fuzz.kinds import KINDS
from tests.fuzz.trials import Tally, try_inputs

_LONGEST_S = 120.0
"""For one input, before the program is taken for hung: it then prints where, and ends."""


def main() -> int:
    """Try the kinds one after another; 1 if an input was wrong or a kind proved little."""
    names = [kind.name for kind in KINDS]
    parser = argparse.ArgumentParser(prog="python -m tests.fuzz", description=__doc__)
    parser.add_argument("kinds", nargs="*", metavar="KIND", help=", ".join(names))
    parser.add_argument("--inputs", type=int, default=2000, help="of each kind")
    parser.add_argument("--number", type=int, default=0, help="another one gives other inputs")
    arguments = parser.parse_args()
    console = Console()
    tallies = []
    for kind in KINDS:
        if kind.name not in (arguments.kinds or names):
            continue
        folder = Path(tempfile.mkdtemp(prefix="fuzz-"))
        console.print(f"{kind.name}: {arguments.inputs:,} inputs, each written to {folder}")
        started = time.monotonic()
        tally = try_inputs(
            kind,
            arguments.inputs,
            folder,
            number=arguments.number,
            before=lambda: faulthandler.dump_traceback_later(_LONGEST_S, exit=True),
        )
        faulthandler.cancel_dump_traceback_later()
        tallies.append((tally, time.monotonic() - started))
    console.print(_table(tallies))
    for tally, _ in tallies:
        for words, example in tally.examples.items():
            console.print(f"{tally.kind}: {words}\n  {example[:500]}", markup=False)
        if tally.is_one_sided:
            console.print(f"{tally.kind}: none was accepted, or none refused: the inputs are amiss")
    return int(any(tally.wrong or tally.is_one_sided for tally, _ in tallies))


def _table(tallies: list[tuple[Tally, float]]) -> Table:
    table = Table(title="Damaged inputs", title_justify="left")
    for name in ("kind", "tried", "refused", "accepted", "wrong", "MB", "seconds"):
        table.add_column(name, justify="left" if name == "kind" else "right")
    table.add_column("refused for", overflow="fold")
    for tally, seconds in tallies:
        reasons = "\n".join(f"{name} {count}" for name, count in tally.refused.most_common())
        counts = (tally.tried, tally.refused.total(), tally.accepted, tally.wrong.total())
        cost = (f"{tally.most_bytes / 1e6:.0f}", f"{seconds:.0f}")
        table.add_row(tally.kind, *(f"{count:,}" for count in counts), *cost, reasons)
    return table


if __name__ == "__main__":
    faulthandler.enable()
    sys.exit(main())
