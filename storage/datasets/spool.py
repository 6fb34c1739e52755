"""Records of a source, put aside on disk by one pass over it, for shards to read theirs.

Archives and gzipped tables can be read from their beginning only; without this, every shard would
read the whole source again.
"""

from __future__ import annotations

import os
import tempfile
from struct import Struct

from storage.datasets.reader import DatasetError

_SIZE = Struct("<Q")


class Spool:
    """Records by the place that `add` gave, in a file that goes when the process does.

    Several threads may read at once.
    """

    def __init__(self) -> None:
        self._file = tempfile.TemporaryFile()  # noqa: SIM115 it is read until the end
        self._end = 0

    def add(self, data: bytes) -> int:
        """Keep a record and return its place.

        Raises:
            DatasetError: if there is no room for it.
        """
        place = self._end
        try:
            self._end += self._file.write(_SIZE.pack(len(data)) + data)
        except OSError as error:
            raise _error(error) from error
        return place

    def finish(self) -> None:
        """Called once, after the last record was added and before the first is read."""
        try:
            self._file.flush()
        except OSError as error:
            raise _error(error) from error

    def read(self, place: int) -> bytes:
        """The record at a place."""
        file = self._file.fileno()
        (size,) = _SIZE.unpack(os.pread(file, _SIZE.size, place))
        return os.pread(file, size, place + _SIZE.size)


def _error(error: OSError) -> DatasetError:
    return DatasetError(
        f"records cannot be put aside in {tempfile.gettempdir()}: {error.strerror}: free some "
        "space, or name another folder in the environment variable TMPDIR"
    )
