"""Readers that turn a dataset's own files into rows of the `studies` table."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from storage.datasets.openi import OpenIReader
from storage.datasets.reader import DatasetReader
from storage.datasets.showcase import ShowcaseReader
from storage.inputs import home


@dataclass(frozen=True)
class DatasetSource:
    """A dataset ready to be read.

    shard_size: reports per shard that suit it; one for volumes, so that a shard is some seconds
    of work and a lost one costs no more than that.
    """

    reader: DatasetReader
    shard_size: int


ARTEFACTS: dict[str, tuple[str, ...]] = {
    "openi": ("openi",),
    "showcase": ("radiograph", "chest_ct", "totalsegmentator"),
}
"""The inputs that each dataset is made of when the user names no source folder."""


def dataset_source(name: str, folder: Path | None) -> DatasetSource:
    """The reader of a dataset, from the user's folder or from the fetched inputs.

    Raises:
        DatasetError: if the folder does not hold that dataset.
    """
    if name == "showcase":
        return DatasetSource(ShowcaseReader(), shard_size=1)
    return DatasetSource(OpenIReader(folder or home() / "inputs" / "openi"), shard_size=1000)
