"""What a selection kept of a data set, beside what the paper kept of it."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence

from storage.datasets.declaration import Declaration
from storage.funnel import FOUND, KEPT, FunnelStep, step_of

Funnels = Mapping[str, Sequence[FunnelStep]]
"""The funnel of each split."""


def compared_with_paper(declaration: Declaration, funnels: Funnels) -> Iterator[str]:
    """A sentence on each split that the paper gives a figure of.

    The figures are compared where the split is here in full: as many studies as its owners count.
    """
    paper = declaration.paper
    if paper is None:
        return
    for split, papers in paper.kept.items():
        funnel = funnels.get(split, ())
        found, kept = step_of(funnel, FOUND).studies, getattr(step_of(funnel, KEPT), paper.unit)
        whole = declaration.counts.get(f"studies.{split}")
        if whole is None or found != whole:
            of = f" of {whole:,}" if whole else ""
            yield (
                f"{split}: {found:,}{of} studies are here, not the whole set: the paper's "
                f"{papers:,} {paper.unit} cannot be compared with"
            )
        elif kept == papers:
            yield f"{split}: {kept:,} {paper.unit} are kept, as many as in the paper"
        else:
            more = "more" if kept > papers else "fewer"
            yield (
                f"{split}: {kept:,} {paper.unit} are kept, {abs(kept - papers):,} {more} than the "
                f"paper's {papers:,}"
            )
    if paper.note:
        yield paper.note
