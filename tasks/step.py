"""What a step is: a function from Arrow tables to a `StepOutput`."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

import pyarrow as pa

from storage.funnel import FunnelStep
from storage.rejects import Reject


@dataclass(frozen=True)
class StepOutput:
    """What a step made of its input.

    rows: the output table; rejects: the records that did not go through.
    rows_in, rows_out: records read and records that went through, in the stage's unit, counted
    independently, so that rows_in == rows_out + rejects can be checked.
    discarded: rejected proposals of an engine, or images that a study is read without. They are
    written to the rejects table too, but are not records that were read, so they are no part of
    that sum.
    beside: further tables that the step makes, by name.
    funnel: what the rules of a selection took out.
    """

    rows: pa.Table
    rejects: Sequence[Reject]
    rows_in: int
    rows_out: int
    discarded: Sequence[Reject] = ()
    beside: Mapping[str, pa.Table] = field(default_factory=dict)
    funnel: Sequence[FunnelStep] = ()
