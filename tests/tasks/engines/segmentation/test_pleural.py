"""A nodule on the chest wall, drawn into a box-shaped lung."""

import numpy as np

from tasks.engines.segmentation.hounsfield.grid import Grid
from tasks.engines.segmentation.hounsfield.lungs import Lungs
from tasks.engines.segmentation.hounsfield.nodules import find_nodules

SPACING_MM = 1.5


def test_half_a_ball_on_the_chest_wall_is_a_nodule():
    shape = (60, 60, 60)
    x, y, z = np.ogrid[:60, :60, :60]
    lung = np.zeros(shape, bool)
    lung[10:50, 10:50, 10:50] = True
    # The left lung's lateral wall is at its smallest x.
    ball = ((x - 10) ** 2 + (y - 30) ** 2 + (z - 30) ** 2) * SPACING_MM**2 <= 10**2
    air = lung & ~ball
    hu = np.where(air, -850, 35).astype(np.int16)
    grid = Grid(hu, hu, (1, 1, 1), (SPACING_MM,) * 3)
    [nodule] = find_nodules(grid, Lungs(air, np.zeros(shape, bool), air), np.ones(shape, bool))
    found = np.zeros(shape, bool)
    found[nodule.voxels] = True
    assert (found & ball).sum() > 0.5 * (lung & ball).sum()
    assert not (found & ~ball).any()
    assert nodule.side == "left"
