"""The page of a single study that was grounded outside of a run."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from dashboard.articles import read_article
from dashboard.gallery import render_page
from dashboard.pictures import add_pictures
from dashboard.summary import DatasetSummary
from storage.records import GroundedReport, Row


def preview_page(
    summary: DatasetSummary,
    reports: Sequence[GroundedReport],
    removed: Sequence[str],
    images: Mapping[str | None, Row],
) -> str:
    """The HTML of a study, as the gallery shows it.

    Args:
        summary: what became of it.
        reports: one an image.
        removed: what cleaning dropped from the report.
        images: cells of `studies.images` by image id.
    """
    articles = []
    for number, report in enumerate(reports):
        article = read_article(f"image-{number + 1}", report, removed)
        add_pictures(article, images.get(report.image_id))
        articles.append(article)
    return render_page("", [(summary, articles)])
