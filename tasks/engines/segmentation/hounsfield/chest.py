"""The structures of one scan; each is computed when it is first needed."""

from __future__ import annotations

from functools import cached_property

import numpy as np

from storage.images.types import Volume
from tasks.engines.segmentation.hounsfield.airways import (
    WALL_HU,
    Airways,
    name_airways,
    segment_airways,
)
from tasks.engines.segmentation.hounsfield.body import segment_body
from tasks.engines.segmentation.hounsfield.bones import Bones, draw_bone, segment_bones
from tasks.engines.segmentation.hounsfield.grid import Grid, Mask3D
from tasks.engines.segmentation.hounsfield.lungs import (
    Lungs,
    draw_lung,
    find_lung_air,
    segment_lungs,
)
from tasks.engines.segmentation.hounsfield.nodules import SOLID_HU, Nodule, find_nodules


class Chest:
    """The structures of one scan; masks are boolean (x, y, z) on the scan's own grid."""

    def __init__(self, volume: Volume) -> None:
        self._volume = volume

    @cached_property
    def grid(self) -> Grid:
        """The scan with its working grid."""
        return Grid.of(self._volume)

    @cached_property
    def working_body(self) -> Mask3D:
        """The body on the working grid."""
        return segment_body(self.grid)

    @cached_property
    def _lung_air(self) -> Mask3D:
        return find_lung_air(self.grid, self.working_body)

    @cached_property
    def _tree(self) -> Mask3D:
        return segment_airways(self.grid, self.working_body, self._lung_air)

    @cached_property
    def working_lungs(self) -> Lungs:
        """The lungs on the working grid."""
        return segment_lungs(self.grid, self.working_body, self._lung_air, self._tree)

    @cached_property
    def _airways(self) -> Airways:
        return name_airways(self.grid, self._tree, self.working_lungs.both)

    @cached_property
    def working_bones(self) -> Bones:
        """The bones on the working grid."""
        return segment_bones(self.grid, self.working_body, self.working_lungs)

    @cached_property
    def nodules(self) -> list[Nodule]:
        """The nodules of both lungs, the largest first."""
        return find_nodules(self.grid, self.working_lungs, self.working_body)

    def draw_nodules(self, nodules: list[Nodule]) -> Mask3D:
        """The union of nodules, their surface where the scan crosses -400 HU."""
        mask = np.zeros_like(self.working_body)
        for nodule in nodules:
            mask[nodule.voxels] = True
        return self.grid.enlarge(mask) & (self.grid.scan_hu > SOLID_HU)

    def body(self) -> Mask3D:
        """The body with the air inside it."""
        return self.grid.enlarge(self.working_body)

    def lungs(self) -> Mask3D:
        """Both lungs, vessels and nodules included, trachea and bronchi excluded."""
        return self.left_lung() | self.right_lung()

    def left_lung(self) -> Mask3D:
        """The left lung."""
        return draw_lung(self.grid, self.working_lungs, self.working_lungs.left, self._tree)

    def right_lung(self) -> Mask3D:
        """The right lung."""
        return draw_lung(self.grid, self.working_lungs, self.working_lungs.right, self._tree)

    def airways(self) -> Mask3D:
        """The whole visible airway tree."""
        return self._lumen(self._airways.tree)

    def trachea(self) -> Mask3D:
        """The trachea with the main bronchi, as TotalSegmentator and SAT label it."""
        return self._lumen(self._airways.trachea)

    def main_bronchi(self) -> Mask3D:
        """Both main bronchi, from the carina to the hilum."""
        return self._lumen(self._airways.left_main | self._airways.right_main)

    def left_main_bronchus(self) -> Mask3D:
        """The left main bronchus."""
        return self._lumen(self._airways.left_main)

    def right_main_bronchus(self) -> Mask3D:
        """The right main bronchus."""
        return self._lumen(self._airways.right_main)

    def skeleton(self) -> Mask3D:
        """All bone, marrow included."""
        return self._bone(self.working_bones.skeleton)

    def vertebrae(self) -> Mask3D:
        """The vertebrae in the field of view, without the spinal canal."""
        return self._bone(self.working_bones.vertebrae)

    def ribs(self) -> Mask3D:
        """The ribs of both sides."""
        return self._bone(self.working_bones.left_ribs | self.working_bones.right_ribs)

    def left_ribs(self) -> Mask3D:
        """The ribs of the left side."""
        return self._bone(self.working_bones.left_ribs)

    def right_ribs(self) -> Mask3D:
        """The ribs of the right side."""
        return self._bone(self.working_bones.right_ribs)

    def _bone(self, mask: Mask3D) -> Mask3D:
        return draw_bone(self.grid, mask, self.working_bones.skeleton)

    def _lumen(self, mask: Mask3D) -> Mask3D:
        # The working grid's staircase is cut to the wall that the scan shows.
        return self.grid.enlarge(mask) & (self.grid.scan_hu < WALL_HU)
