"""Staging: a data set is renewed beside itself, while its last version stays readable.

The files of the new version lie below `.staging/<data set>/`, outside the tables, so that nothing
that reads a table by its folder sees them. `storage.snapshots` puts them into place at once.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass

from storage.manifests import FOLDER as MANIFESTS
from storage.plans import FOLDER as PLANS
from storage.schemas import SCHEMAS
from storage.shards import dataset_folder
from storage.store import Store, StoredFile

FOLDER = ".staging"

OWN_FOLDERS = (*SCHEMAS, MANIFESTS, PLANS)
"""Folders of the files that make up a data set. Other files of a store, such as taxonomies and
answers of a language model, are shared by all versions of all data sets."""


def is_of_dataset(path: str, dataset: str) -> bool:
    """Whether a file of a store is one of those that make up a data set."""
    top, *folders, name = path.split("/")
    owner = folders[-1] if folders else name.removesuffix(".json")
    return top in OWN_FOLDERS and owner == dataset_folder(dataset)


@dataclass(frozen=True)
class StagedStore(Store):
    """A store in which one data set is renewed: what is written to it hides what was there.

    Files of the data set are written to the staging folder and deleted by a marker in it; all other
    files are those of the store itself. One run at a time may write to it.
    """

    dataset: str

    @property
    def base(self) -> Store:
        """The store as readers see it, with the version of the data set before this one."""
        return Store(self.root)

    @property
    def folder(self) -> str:
        """The staging folder of the data set in the store."""
        return f"{FOLDER}/{dataset_folder(self.dataset)}"

    def begin(self, snapshot: int) -> None:
        """Go on with what a killed run has staged on a version, or begin anew on another one.

        snapshot: number of the version that is renewed.
        """
        began = json.dumps({"snapshot": snapshot}).encode()
        if self.base.read(self._began) != began:
            self.discard()
            self.base.write(self._began, began)

    def discard(self) -> None:
        """Remove all that was staged."""
        # Without its note, what is left of a staging that is cut off here is never gone on with.
        self.base.delete(self._began)
        for path in self.base.list(self.folder):
            self.base.delete(path)

    def staged(self) -> dict[str, str]:
        """The files that were written, by path, each with the place where it lies now."""
        begin = len(self._written(""))
        return {place[begin:]: place for place in self.base.list(self._written("").rstrip("/"))}

    def deleted(self) -> list[str]:
        """The files of the store that were deleted; some may have been written again since."""
        begin = len(self._deleted(""))
        return [marker[begin:] for marker in self.base.list(self._deleted("").rstrip("/"))]

    def location(self, path: str) -> str:
        """Where a file lies: in the staging folder, if it was written there."""
        [place] = self.places([path])
        return self.base.location(place)

    def places(self, paths: Sequence[str]) -> list[str]:
        """Where the bytes of some files lie, below the root."""
        staged = self.staged()
        return [staged.get(path, path) for path in paths]

    def read(self, path: str) -> bytes | None:
        """The bytes of a file of the merged view, or None when there is no such file."""
        if not self._stages(path):
            return self.base.read(path)
        data = self.base.read(self._written(path))
        if data is not None or self.base.has(self._deleted(path)):
            return data
        return self.base.read(path)

    def has(self, path: str) -> bool:
        """Whether there is a file at a path of the merged view."""
        if not self._stages(path):
            return self.base.has(path)
        if self.base.has(self._written(path)):
            return True
        return not self.base.has(self._deleted(path)) and self.base.has(path)

    def write(self, path: str, data: bytes) -> None:
        """Stage a file of the data set; write any other where it belongs."""
        self.base.write(self._written(path) if self._stages(path) else path, data)

    def delete(self, path: str) -> None:
        """Remove a file of the data set from the merged view; any other from the store."""
        if not self._stages(path):
            self.base.delete(path)
            return
        # The marker comes first: a run that is killed here leaves the file as it was.
        if self.base.has(path):
            self.base.write(self._deleted(path), b"")
        self.base.delete(self._written(path))

    def files(self, folder: str, *, recursive: bool = True) -> Sequence[StoredFile]:
        """The files of the merged view below a folder with their age, sorted by path."""
        below = {
            file.path: file
            for file in self.base.files(folder, recursive=recursive)
            if not file.path.startswith(f"{FOLDER}/")
        }
        for gone in self._staged_files(self._deleted(""), folder, recursive=recursive):
            below.pop(gone.path, None)
        for file in self._staged_files(self._written(""), folder, recursive=recursive):
            below[file.path] = file
        return [below[path] for path in sorted(below)]

    def _staged_files(self, kind: str, folder: str, *, recursive: bool) -> Sequence[StoredFile]:
        found = self.base.files(f"{kind}{folder}".rstrip("/"), recursive=recursive)
        return [StoredFile(file.path.removeprefix(kind), file.age) for file in found]

    def _stages(self, path: str) -> bool:
        return is_of_dataset(path, self.dataset)

    def _written(self, path: str) -> str:
        return f"{self.folder}/written/{path}"

    def _deleted(self, path: str) -> str:
        return f"{self.folder}/deleted/{path}"

    @property
    def _began(self) -> str:
        return f"{self.folder}/began.json"
