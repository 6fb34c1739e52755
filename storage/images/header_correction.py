"""Corrections of a NIfTI header that a data set gives in a table, kept in the image's uri.

    /data/train_1_a_1.nii.gz#slope=1&intercept=-1024&spacing=0.75,0.75,1.5

The file stays as it is. Whoever loads the uri, as a path, gets the corrected volume.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path

_NUMBER = r"(-?\d+(?:\.\d+)?(?:e-?\d+)?)"
_CORRECTED = re.compile(
    rf"(.+\.nii(?:\.gz)?)#slope={_NUMBER}&intercept={_NUMBER}"
    rf"&spacing={_NUMBER},{_NUMBER},{_NUMBER}"
)


@dataclass(frozen=True)
class HeaderCorrection:
    """What stands in place of a header's statements.

    slope, intercept: Hounsfield units = stored value * slope + intercept.
    spacing_mm: between voxels along the file's own axes, whose directions the header still gives.
    """

    slope: float
    intercept: float
    spacing_mm: tuple[float, float, float]

    def uri(self, path: Path) -> str:
        """The uri of a file with this correction."""
        spacing = ",".join(f"{length:.10g}" for length in self.spacing_mm)
        return f"{path}#slope={self.slope:.10g}&intercept={self.intercept:.10g}&spacing={spacing}"


def split_correction(path: Path) -> tuple[Path, HeaderCorrection | None]:
    """The file that a uri names, as a path, and the correction of its header, if it has one."""
    found = _CORRECTED.fullmatch(str(path))
    if found is None:
        return path, None
    slope, intercept, *spacing = map(float, found.groups()[1:])
    x, y, z = spacing
    return Path(found[1]), HeaderCorrection(slope, intercept, (x, y, z))
