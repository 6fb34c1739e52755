"""What a reader of a data set of your own is made with; see `docs/extending.md`."""

from storage.datasets.declaration import Declaration
from storage.datasets.reader import DatasetError, DatasetReader, SourceRecord, Study, StudyImage
from storage.gold import Gold, GoldBox, GoldMask, GoldPhrase, Question
from storage.images.loading import describe_image
from storage.images.types import ImageDescription, ImageError
from storage.rejects import Reject

__all__ = [
    "DatasetError",
    "DatasetReader",
    "Declaration",
    "Gold",
    "GoldBox",
    "GoldMask",
    "GoldPhrase",
    "ImageDescription",
    "ImageError",
    "Question",
    "Reject",
    "SourceRecord",
    "Study",
    "StudyImage",
    "describe_image",
]
