"""What a step is: a function from Arrow tables to a `StepOutput`."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import pyarrow as pa

from storage.rejects import Reject


@dataclass(frozen=True)
class StepOutput:
    """What a step made of its input.

    rows: the output table; rejects: what was set aside.
    rows_in, rows_out: records read and records that went through, in the stage's unit, counted
    apart from each other so that their sum can be checked.
    discarded: what an engine proposed in vain, listed with the rejects, but no record that was
    read, so no part of that sum.
    """

    rows: pa.Table
    rejects: Sequence[Reject]
    rows_in: int
    rows_out: int
    discarded: Sequence[Reject] = ()
