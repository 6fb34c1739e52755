"""A detector whose boxes a worker makes."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from storage.images.types import Radiograph
from storage.records import Box, Site
from tasks.engines.protocols import Detection, Fingerprint, Ungrounded
from tasks.engines.worker.errors import WorkerLostError, WorkerRefusedError
from tasks.engines.worker.pool import WorkerPool
from tasks.engines.worker.selection import Selection
from tasks.engines.worker.vocabulary import Question, Vocabulary

_LONGEST_DETAIL = 300
"""Characters of what a worker sent that are quoted."""

SiteAnswer = list[Box] | Detection | Ungrounded


class WorkerDetector:
    """Boxes of the classes that a worker knows, several radiographs at a time.

    A worker that is lost with a batch is started again and given each radiograph of it alone, so
    that the one at which it is lost again is the only one without boxes.

    batch_size: radiographs at a time.
    """

    def __init__(
        self,
        pool: WorkerPool,
        vocabulary: Vocabulary,
        made_by: Fingerprint,
        selection: Selection,
        batch_size: int,
    ) -> None:
        """Use a pool of workers.

        Args:
            pool: the workers.
            vocabulary: what they know.
            made_by: the fingerprint but for vocabulary and selection.
            selection: which boxes are kept.
            batch_size: radiographs at a time.
        """
        self._pool = pool
        self._vocabulary = vocabulary
        self._selection = selection
        self.batch_size = batch_size
        self.fingerprint: Fingerprint = {
            **made_by,
            "targets": vocabulary.digest,
            "selection": repr(selection),
        }

    @property
    def concurrency(self) -> int:
        """Shards at once: one at each worker, and one whose radiographs are read meanwhile."""
        return self._pool.size + 1

    def close(self) -> None:
        """End the workers; the next radiograph starts them again."""
        self._pool.close()

    def detect(self, image: Radiograph, sites: Sequence[Site]) -> list[SiteAnswer]:
        """Answer each site, order kept."""
        return self.detect_batch([(image, sites)])[0]

    def detect_batch(
        self, images: Sequence[tuple[Radiograph, Sequence[Site]]]
    ) -> list[list[SiteAnswer]]:
        """Answer each site of each radiograph, order kept.

        Raises:
            WorkerError: if the workers cannot be started, or are lost time after time.
        """
        asked = [[self._vocabulary.question(site) for site in sites] for _, sites in images]
        wanted = [i for i, questions in enumerate(asked) if any(questions)]
        names = sorted({p for questions in asked for q in questions if q for p in q.prompts})
        films = [images[i][0] for i in wanted]
        found = dict(zip(wanted, self._ask(films, names), strict=True)) if wanted else {}
        return [
            [
                self._answer(image, site, question, found.get(i, ()))
                for site, question in zip(sites, asked[i], strict=True)
            ]
            for i, (image, sites) in enumerate(images)
        ]

    def _ask(
        self, films: Sequence[Radiograph], names: Sequence[str]
    ) -> list[Sequence[Any] | Ungrounded]:
        """What is found on each film: rows of a class and a box, or why there is nothing."""
        alone = len(films) == 1
        try:
            rows = self._rows(films, names, retry=alone)
        except (WorkerLostError, WorkerRefusedError) as error:
            if alone:
                return [Ungrounded(error.reason, error.detail)]
            return [self._alone(film, names) for film in films]
        return list(rows)

    def _alone(self, film: Radiograph, names: Sequence[str]) -> Sequence[Any] | Ungrounded:
        try:
            return self._rows([film], names, retry=False)[0]
        except (WorkerLostError, WorkerRefusedError) as error:
            return Ungrounded(error.reason, error.detail)

    def _rows(
        self, films: Sequence[Radiograph], names: Sequence[str], *, retry: bool
    ) -> Sequence[Sequence[Any]]:
        request = {"do": "detect", "names": names}
        arrays = {"films": [film.pixels for film in films]}
        answer = self._pool.ask(request, arrays, retry=retry).message.get("films")
        if not isinstance(answer, list) or len(answer) != len(films):
            given = len(answer) if isinstance(answer, list) else "no"
            detail = f"the worker gave {given} answers for {len(films)} radiographs"
            raise WorkerRefusedError("worker_bad_answer", detail)
        for row in (row for film in answer for row in film):
            if not _is_row(row):
                detail = f"the worker gave {row!r} for a box"[:_LONGEST_DETAIL]
                raise WorkerRefusedError("worker_bad_answer", detail)
        return answer

    def _answer(
        self,
        image: Radiograph,
        site: Site,
        question: Question | None,
        rows: Sequence[Any] | Ungrounded,
    ) -> SiteAnswer:
        if question is None:
            name = self.fingerprint["name"]
            detail = f"{site.target}: {name} has no class for it"
            return Ungrounded("target_not_supported", detail)
        if isinstance(rows, Ungrounded):
            return rows
        boxes = [Box(*row[1:]) for row in rows if row[0] in question.prompts]
        boxes.sort(key=lambda box: -box.score)
        return self._selected(boxes, site, question, image.pixels.shape[1])

    def _selected(
        self, boxes: list[Box], site: Site, question: Question, columns: int
    ) -> SiteAnswer:
        least = self._selection.least_score(site.target)
        by_paper = self._selection.policy == "paper"
        kept = [box for box in boxes if box.score >= least]
        if not kept:
            if by_paper and boxes:
                return Detection((boxes[0],), forced=True)
            best = f"the best box has the score {boxes[0].score:.3f}" if boxes else "no box"
            return Ungrounded("not_found", f"{site.target}: {best}, of {least:g} that is asked for")
        there = kept if by_paper else [box for box in kept if _reaches(box, question, columns)]
        if not there:
            detail = f"{site.target}: all {len(kept)} boxes lie on the other side than stated"
            return Ungrounded("side_mismatch", detail)
        return there


def _is_row(row: object) -> bool:
    """Whether it is the class of a box, its four corners and its score."""
    return (
        isinstance(row, list)
        and len(row) == 6
        and isinstance(row[0], str)
        and all(isinstance(value, float | int) for value in row[1:])
    )


def _reaches(box: Box, question: Question, columns: int) -> bool:
    """Whether any of the box is on the stated side; the patient's right is left on the film.

    The film's middle stands for the patient's, so a box across it counts on both sides.
    """
    if question.side is None:
        return True
    return box.x_min < columns / 2 if question.side == "right" else box.x_max > columns / 2
