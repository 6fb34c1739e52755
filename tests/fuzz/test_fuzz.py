"""A few damaged inputs of each kind, always the same ones; `make fuzz` tries many more."""

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from storage.datasets.openi import ARCHIVE
from storage.datasets.reader import DatasetError
from storage.datasets.registry import find_declaration
from storage.images.loading import load_volume
from storage.images.types import ImageError
from tests.fuzz.kinds import KINDS
from tests.fuzz.trials import Kind, try_inputs

_INPUTS = 60
_FLIPPED_BITS = 4


@pytest.mark.parametrize("kind", KINDS, ids=lambda kind: kind.name)
def test_damaged_inputs_are_read_right_or_refused(tmp_path: Path, kind: Kind) -> None:
    tally = try_inputs(kind, _INPUTS, tmp_path, stop_at_wrong=True)
    assert not tally.is_one_sided


REAL: dict[str, Callable[[Path], object]] = {
    f"openi/{ARCHIVE}": lambda path: [*find_declaration("openi").open(path.parent).records()],
    "totalsegmentator/abdomen_crop_ct.nii.gz": load_volume,
}


@pytest.mark.parametrize("name", REAL)
def test_a_flipped_bit_of_a_real_file_is_refused(
    tmp_path: Path, real_input: Callable[[str], Path], name: str
) -> None:
    data = bytearray(real_input(name).read_bytes())
    path = tmp_path / Path(name).name
    for bit in np.random.default_rng(0).integers(len(data) * 8, size=_FLIPPED_BITS):
        data[bit // 8] ^= 1 << bit % 8
        path.write_bytes(data)
        data[bit // 8] ^= 1 << bit % 8
        with pytest.raises((DatasetError, ImageError)):
            REAL[name](path)
