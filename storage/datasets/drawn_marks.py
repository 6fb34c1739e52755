"""The boxes and masks that the rows of one image draw, as the family `boxes` reads them."""

from __future__ import annotations

from collections.abc import Iterator, Mapping

import numpy as np
from numpy.typing import NDArray

from storage.datasets.box_fusion import METHOD, fuse
from storage.datasets.boxes_layout import Columns, Layout, Source
from storage.datasets.marks import MarkError, PlacedBox, box_on_image, number, target_of
from storage.datasets.rows import Row
from storage.gold import GoldBox, GoldMask
from storage.images.types import ImageDescription
from storage.records import Box, Mask
from storage.rejects import Reject


def marks_nothing(layout: Layout, columns: Columns, row: Row) -> bool:
    """Whether a row says that there is nothing to mark: by its label, else by its first number."""
    if columns.label is not None:
        return row.cells.get(columns.label, "") in layout.nothing
    cells = [row.cells.get(name, "") for name in columns.numbers]
    return not any(cells) or cells[0] in layout.nothing


class DrawnMarks:
    """The marks of one image as they are added."""

    def __init__(
        self,
        layout: Layout,
        targets: Mapping[str, str | None],
        source: Source,
        image_id: str,
        file: ImageDescription | None,
    ) -> None:
        self._layout = layout
        self._targets = targets
        self._source = source
        self._image_id = image_id
        self._shape = file.shape if file else None
        self._drawn: dict[str, list[tuple[str | None, Box]]] = {}
        self.masks: list[GoldMask] = []
        self.left_out: list[Reject] = []

    def add(self, row: Row) -> None:
        """Add what a row marks; what cannot be used is left out."""
        columns = self._layout.columns
        if columns is None or marks_nothing(self._layout, columns, row):
            return
        label = self._layout.label or row.cells.get(columns.label or "", "")
        try:
            target = target_of(self._targets, label)
            if columns.runs:
                self._add_mask(label, target, row.cells[columns.runs])
            else:
                reader = row.cells.get(columns.reader or "") or None
                box, cut = self._box(columns, row)
                self._drawn.setdefault(label, []).append((reader, box))
                if cut is not None:
                    self._leave_out(cut, label, row)
        except MarkError as error:
            self._leave_out(error, label, row)

    def _leave_out(self, error: MarkError, label: str, row: Row) -> None:
        record = f"{label or 'mark'} of row {row.number}"
        self.left_out.append(error.reject(self._image_id, record, self._image_id))

    def _box(self, columns: Columns, row: Row) -> PlacedBox:
        x, y, right, bottom = (number(row.cells.get(name, "")) for name in columns.numbers)
        if columns.sizes:
            right, bottom = x + right, y + bottom
        across, down = self._scale()
        side = self._layout.frame
        frame = (side, side) if side else None
        corners = (x * across, y * down, right * across, bottom * down)
        return box_on_image(corners, self._shape or frame)

    def _scale(self) -> tuple[float, float]:
        """Pixels of the stored image in a pixel of the frame, along x and y."""
        if self._layout.frame is None or self._shape is None:
            return 1.0, 1.0
        rows, columns = self._shape
        return columns / self._layout.frame, rows / self._layout.frame

    def _add_mask(self, label: str, target: str | None, runs: str) -> None:
        side = self._layout.frame
        shape = (side, side) if side else self._shape
        if shape is None:
            raise MarkError("image_not_found", "the size of the image is not known")
        if self._shape not in (None, shape):
            raise MarkError("mask_wrong_shape", f"the mask is {shape}, the image {self._shape}")
        mask = Mask.of(decode_runs(runs, (shape[0], shape[1])), None)
        count = sum(held.label == label for held in self.masks)
        self.masks.append(
            GoldMask(
                self._image_id, mask, label, target, instance=count, readers=self._source.readers
            )
        )

    def boxes(self) -> tuple[GoldBox, ...]:
        """All boxes, fused where the declaration says so."""
        return tuple(box for label in self._drawn for box in self._of_label(label))

    def _of_label(self, label: str) -> Iterator[GoldBox]:
        target, drawn = self._targets[label], self._drawn[label]
        named = [(reader, box) for reader, box in drawn if reader is not None]
        if self._layout.fuse and len(named) == len(drawn):
            for instance, fused in enumerate(fuse(named)):
                yield GoldBox(
                    self._image_id,
                    fused.box,
                    label,
                    target,
                    instance=instance,
                    annotator=METHOD,
                    readers=fused.readers,
                )
            return
        for instance, (reader, box) in enumerate(drawn):
            yield GoldBox(
                self._image_id,
                box,
                label,
                target,
                instance=instance,
                annotator=reader,
                readers=self._source.readers,
            )


def decode_runs(runs: str, shape: tuple[int, int]) -> NDArray[np.bool_]:
    """The mask (rows, columns) of pairs of gap and length that run down the columns.

    A gap is counted from the end of the run before (SIIM-ACR pneumothorax), not from the start of
    the image.

    Raises:
        MarkError: if it is no such list, or leads out of the image.
    """
    rows, columns = shape
    try:
        numbers = np.array(runs.split(), np.int64)
    except (ValueError, OverflowError):
        raise MarkError("mark_unreadable", "the runs of the mask are no whole numbers") from None
    if len(numbers) % 2 or (numbers < 0).any():
        raise MarkError("mark_unreadable", "the runs of the mask are no pairs of gap and length")
    ends = np.cumsum(numbers)
    if not len(ends) or ends[-1] > rows * columns:
        raise MarkError("mask_wrong_shape", f"the runs do not fit {columns} × {rows} pixels")
    flat = np.zeros(rows * columns, np.bool_)
    for start, end in zip(ends[0::2], ends[1::2], strict=True):
        flat[start:end] = True
    return flat.reshape(columns, rows).T
