"""One scan with the labels of the atlas on it."""

from __future__ import annotations

from functools import cached_property

import numpy as np

from storage.images.types import Volume
from tasks.engines.segmentation.hounsfield.chest import Chest
from tasks.engines.segmentation.hounsfield.grid import Grid, Labels, Mask3D
from tasks.engines.segmentation.registration import refinement
from tasks.engines.segmentation.registration.alignment import align, find_start, warped_labels
from tasks.engines.segmentation.registration.atlas import Atlas, content_of
from tasks.engines.segmentation.registration.confidence import (
    agreement,
    require_fit,
    require_orientation,
)
from tasks.engines.segmentation.registration.errors import CannotRegisterError
from tasks.engines.segmentation.registration.levels import VERTEBRA, doubtful_levels
from tasks.engines.segmentation.registration.matching import matching_image

LOBES = "lung_"
"""How the names of the lobes begin."""


class LabelledScan:
    """The labels that registration transferred to a scan; masks are on the scan's working grid."""

    def __init__(self, volume: Volume, atlas: Atlas) -> None:
        """Register the atlas to a scan.

        Raises:
            CannotRegisterError: if it does not fit, or is made from this scan.
        """
        if content_of(volume) == atlas.content:
            raise CannotRegisterError(
                "scan_of_the_atlas", "the scan is the CT that the atlas was made from"
            )
        self._atlas = atlas
        self._chest = Chest(volume)
        scan = matching_image(self.grid, self._chest.working_body)
        start = find_start(scan, atlas.image)
        require_orientation(scan, atlas.image, start)
        self.alignment = align(scan, atlas.image, start)
        require_fit(self.alignment)

    @property
    def grid(self) -> Grid:
        """The scan with its working grid."""
        return self._chest.grid

    def confidence(self, *names: str) -> float:
        """The agreement of coarse and fine registration on a union of structures."""
        labels = self._ids(names)
        return agreement(np.isin(self._coarse_labels, labels), np.isin(self.labels, labels))

    def transferred(self, *names: str) -> Mask3D:
        """The labels of structures as the registration put them."""
        mask: Mask3D = np.isin(self.labels, self._ids(names))
        return mask

    def organ(self, *names: str) -> Mask3D:
        """An organ, with the surface that the scan shows."""
        transferred = self.transferred(*names)
        others = (self.labels > 0) & ~transferred | self._chest.working_lungs.both
        return refinement.of_organ(self.grid, transferred, others)

    def lung(self, *names: str) -> Mask3D:
        """Lobes, within the lungs that the scan shows."""
        lungs = self._chest.working_lungs.both
        return refinement.of_lung(self.labels, tuple(self._ids(names)), self._lobes, lungs)

    def mediastinal(self, *names: str) -> Mask3D:
        """An organ between the lungs: its label without the lungs that the scan shows."""
        return self.transferred(*names) & ~self._chest.working_lungs.both

    def doubt(self, name: str) -> str | None:
        """Why the level of a vertebra is not certain; None if it is, or it is no vertebra."""
        return self._doubts.get(name) if name.startswith(VERTEBRA) else None

    @cached_property
    def labels(self) -> Labels:
        """The label of every voxel of the working grid; 0 is background."""
        return warped_labels(self._atlas.labels, self.grid, self.alignment.final)

    @cached_property
    def _coarse_labels(self) -> Labels:
        return warped_labels(self._atlas.labels, self.grid, self.alignment.coarse)

    @cached_property
    def _lobes(self) -> Mask3D:
        return self.transferred(*(n for n in self._atlas.id_by_name if n.startswith(LOBES)))

    @cached_property
    def _doubts(self) -> dict[str, str]:
        spine = self._chest.working_bones.spine
        return doubtful_levels(self.grid, self.labels, self._atlas.id_by_name, spine)

    def _ids(self, names: tuple[str, ...]) -> list[int]:
        return [self._atlas.id_by_name[name] for name in names]
