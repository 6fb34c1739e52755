"""Segmentations in which every voxel has the id of one structure.

Format: NIfTI of integers, as TotalSegmentator and most public CT segmentations come.
"""

from __future__ import annotations

import csv
from collections.abc import Mapping
from functools import cached_property
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

from storage.images.volume_files import read_label_ids


class LabelMap:
    """Structures by name, on one RAS+ grid.

    ids: the label of every voxel (x, y, z); 0 is background.
    affine: (4, 4), voxel index to RAS mm.
    """

    def __init__(
        self, ids: NDArray[np.uint16], affine: NDArray[np.float64], id_by_name: Mapping[str, int]
    ) -> None:
        self.ids, self.affine = ids, affine
        self._id_by_name = dict(id_by_name)

    @classmethod
    def load(cls, labels: Path, table: Path) -> LabelMap:
        """Read a NIfTI file of labels and its table (CSV) with the columns `structure` and `id`."""
        ids, affine = read_label_ids(labels)
        with table.open(newline="", encoding="utf-8") as stream:
            id_by_name = {row["structure"]: int(row["id"]) for row in csv.DictReader(stream)}
        return cls(ids, affine, id_by_name)

    @property
    def names(self) -> list[str]:
        """The structures that occur in the image, in the order of the table."""
        return [name for name, label in self._id_by_name.items() if self._extent(label)]

    def id_of(self, name: str) -> int:
        """The label of a structure.

        Raises:
            KeyError: for a name that the table does not have.
        """
        return self._id_by_name[name]

    def mask(self, *names: str) -> NDArray[np.bool_]:
        """The voxels of any of the structures, on the whole grid; empty for no names.

        Raises:
            KeyError: for a name that the table does not have.
        """
        wanted = np.zeros(np.iinfo(self.ids.dtype).max + 1, np.bool_)
        wanted[[self._id_by_name[name] for name in names]] = True
        mask: NDArray[np.bool_] = wanted[self.ids]
        return mask

    def crop(self, name: str) -> tuple[NDArray[np.bool_], NDArray[np.float64]]:
        """The mask of one structure in its bounding box, and the affine of that box.

        Raises:
            KeyError: for a name that is not among `names`.
        """
        label = self._id_by_name[name]
        extent = self._extent(label)
        if extent is None:
            raise KeyError(name)
        affine = self.affine.copy()
        affine[:3, 3] += affine[:3, :3] @ [axis.start for axis in extent]
        return self.ids[extent] == label, affine

    def _extent(self, label: int) -> tuple[slice, ...] | None:
        return self._extents[label - 1] if label <= len(self._extents) else None

    @cached_property
    def _extents(self) -> list[tuple[slice, ...] | None]:
        """Bounding boxes of the labels 1, 2, …; one pass over the image."""
        return [*ndimage.find_objects(self.ids)]
