"""A segmenter whose masks a worker makes."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

from storage.images.types import Volume
from storage.records import Site
from tasks.engines.protocols import Fingerprint, Segmentation, Ungrounded
from tasks.engines.worker.errors import WorkerLostError, WorkerRefusedError
from tasks.engines.worker.pool import Reply, WorkerPool
from tasks.engines.worker.vocabulary import Question, Side, Vocabulary

LEAST_SHARE_ON_SIDE = 0.25
"""Of a connected part's voxels, those on the stated side for it to count as there: a large effusion
may reach across the midline, and the midline is that of the body's outline, not of the spine."""

_BODY_HU = -300
"""Fat begins at -150 HU and lung ends at -400: what is above is the body less its air."""

_STRIDE = 4
"""Every fourth voxel along each axis is enough to find the body's middle."""

_REASONS = {"not_found": "not_found", "unknown": "target_not_supported", "failed": "worker_failed"}
"""The reason code of each that a worker may give for having no mask."""


class WorkerSegmenter:
    """Masks of the classes, or for the words, that a worker knows.

    A worker that is lost (a crash, a time-out, memory) is started again and asked once more; a
    volume at which it is lost twice has no mask, with that reason.
    """

    def __init__(self, pool: WorkerPool, vocabulary: Vocabulary, made_by: Fingerprint) -> None:
        """Use a pool of workers.

        Args:
            pool: the workers.
            vocabulary: what they know.
            made_by: the fingerprint but for the vocabulary.
        """
        self._pool = pool
        self._vocabulary = vocabulary
        self.fingerprint: Fingerprint = {**made_by, "targets": vocabulary.digest}

    @property
    def concurrency(self) -> int:
        """Shards at once: one at each worker, and one whose masks are encoded meanwhile."""
        return self._pool.size + 1

    def close(self) -> None:
        """End the workers; the next volume starts them again."""
        self._pool.close()

    def segment(self, volume: Volume, sites: Sequence[Site]) -> Iterable[Segmentation | Ungrounded]:
        """Answer each site, order kept; each mask is made when it is asked for.

        Raises:
            WorkerError: if the workers cannot be started, or are lost time after time.
        """
        questions = [self._vocabulary.question(site) for site in sites]
        prompts = _distinct(questions)
        if not prompts:
            return [self._unknown(site) for site in sites]
        request = {
            "do": "segment",
            "affine": volume.affine.ravel().tolist(),
            "modality": volume.modality,
            "prompts": prompts,
        }
        try:
            reply = self._pool.ask(request, {"volume": [volume.hu]})
            found = _by_prompt(reply, prompts, volume.hu.shape)
        except (WorkerLostError, WorkerRefusedError) as error:
            failed = Ungrounded(error.reason, error.detail)
            return [
                self._unknown(site) if question is None else failed
                for site, question in zip(sites, questions, strict=True)
            ]
        return self._answers(volume, sites, questions, reply, found)

    def _answers(
        self,
        volume: Volume,
        sites: Sequence[Site],
        questions: Sequence[Question | None],
        reply: Reply,
        found: Mapping[str, Mapping[str, Any]],
    ) -> Iterator[Segmentation | Ungrounded]:
        middle: float | None = None
        for site, question in zip(sites, questions, strict=True):
            if question is None:
                yield self._unknown(site)
                continue
            answers = [found[prompt] for prompt in question.prompts]
            masks = [answer for answer in answers if "mask" in answer]
            if not masks:
                yield _why_none(site, answers)
                continue
            voxels = _united(masks, reply, volume.hu.shape)
            if question.side is not None:
                middle = _middle(volume) if middle is None else middle
                voxels = on_side(voxels, question.side, middle)
                if not voxels.any():
                    yield Ungrounded(
                        "side_mismatch",
                        f"{site.target}: what was found is not on the {question.side}",
                    )
                    continue
            scores = [answer["score"] for answer in masks if answer.get("score") is not None]
            yield Segmentation(voxels, min(scores) if scores else None)

    def _unknown(self, site: Site) -> Ungrounded:
        name = self.fingerprint["name"]
        return Ungrounded("target_not_supported", f"{site.target}: {name} has no class for it")


def on_side(voxels: NDArray[np.bool_], side: Side, middle: float) -> NDArray[np.bool_]:
    """The connected parts of a mask that lie on a side of the patient.

    Args:
        voxels: (x, y, z), x growing towards the patient's right.
        side: of the patient.
        middle: index along x of the body's middle, between voxels.
    """
    labels, count = ndimage.label(voxels)
    numbers = np.arange(1, count + 1)
    is_right = (np.arange(voxels.shape[0]) >= middle)[:, None, None]
    there = is_right if side == "right" else ~is_right
    total = ndimage.sum_labels(voxels, labels, numbers)
    on = ndimage.sum_labels(voxels & there, labels, numbers)
    kept = np.concatenate([[False], on >= LEAST_SHARE_ON_SIDE * total])
    chosen: NDArray[np.bool_] = kept[labels]
    return chosen


def _middle(volume: Volume) -> float:
    """Where half of the body is to the left: an index along x; the grid's middle without a body."""
    body = volume.hu[::_STRIDE, ::_STRIDE, ::_STRIDE] > _BODY_HU
    along_x = np.cumsum(body.sum(axis=(1, 2)))
    if not along_x[-1]:
        return int(volume.hu.shape[0]) / 2
    half = int(np.searchsorted(along_x, along_x[-1] / 2))
    return (half + 0.5) * _STRIDE


def _distinct(questions: Sequence[Question | None]) -> list[str]:
    asked = (prompt for question in questions if question for prompt in question.prompts)
    return list(dict.fromkeys(asked))


def _by_prompt(
    reply: Reply, prompts: Sequence[str], shape: tuple[int, ...]
) -> dict[str, Mapping[str, Any]]:
    """The worker's answers by prompt.

    Raises:
        WorkerRefusedError: if they are not as many, or a mask does not fit into the volume.
    """
    answers = reply.message.get("answers")
    if not isinstance(answers, list) or len(answers) != len(prompts):
        given = len(answers) if isinstance(answers, list) else "no"
        raise WorkerRefusedError(
            "worker_bad_answer", f"the worker gave {given} answers for {len(prompts)} prompts"
        )
    for prompt, answer in zip(prompts, answers, strict=True):
        if not isinstance(answer, dict):
            raise WorkerRefusedError("worker_bad_answer", f"no answer for {prompt}")
        if "mask" in answer and not _fits(reply.array(answer["mask"]), answer["start"], shape):
            raise WorkerRefusedError(
                "worker_bad_answer", f"the worker's mask for {prompt} does not fit into the volume"
            )
    return dict(zip(prompts, answers, strict=True))


def _fits(part: NDArray[Any], start: Sequence[int], shape: tuple[int, ...]) -> bool:
    return (
        part.dtype == np.bool_
        and part.ndim == len(start) == len(shape)
        and all(
            low >= 0 and low + size <= whole
            for low, size, whole in zip(start, part.shape, shape, strict=True)
        )
    )


def _united(
    masks: Sequence[Mapping[str, Any]], reply: Reply, shape: tuple[int, ...]
) -> NDArray[np.bool_]:
    voxels = np.zeros(shape, np.bool_)
    for answer in masks:
        part = reply.array(answer["mask"])
        window = tuple(
            slice(low, low + size) for low, size in zip(answer["start"], part.shape, strict=True)
        )
        voxels[window] |= part
    return voxels


def _why_none(site: Site, answers: Sequence[Mapping[str, Any]]) -> Ungrounded:
    """The reason of the first prompt, but that of one that was looked for comes before others."""
    searched = [answer for answer in answers if answer.get("reason") == "not_found"]
    answer = (searched or list(answers))[0]
    reason = _REASONS.get(str(answer.get("reason")), "worker_bad_answer")
    detail = answer.get("detail") or "the worker found nothing"
    return Ungrounded(reason, f"{site.target}: {detail}")
