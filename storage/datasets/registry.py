"""The data sets there are: declarations of this package, of other packages, and of the user.

Another package adds one by an entry point in the group `vividmed.datasets`: its name is the data
set's, its value the package whose folder holds `<name>.yaml`. Nothing of it is imported for that.
A user's own stand in `datasets` of the project's data folder; `vividmed ingest` writes them there.
"""

from __future__ import annotations

from difflib import get_close_matches
from functools import cache
from importlib.metadata import entry_points
from importlib.util import find_spec
from pathlib import Path

from storage.datasets.declaration import SUFFIXES, Declaration, read_declaration
from storage.datasets.reader import DatasetError
from storage.inputs import home

ENTRY_POINTS = "vividmed.datasets"

_PACKAGED = Path(__file__).parent / "declarations"


def packaged_names() -> list[str]:
    """The data sets that come with this package."""
    return sorted(file.stem for file in _PACKAGED.glob("*.yaml"))


def dataset_names() -> list[str]:
    """All data sets that can be named: of this package, of others, and the user's own."""
    return sorted({*published_names(), *_own()})


def published_names() -> list[str]:
    """The data sets of this package and of others, which no archive of a user may be named as."""
    return sorted({*packaged_names(), *_packages()})


def own_folder() -> Path:
    """Where declarations of the user's own data sets are found by their names."""
    return home() / "datasets"


def is_file_name(name: str) -> bool:
    """Whether a data set is named by the file that declares it."""
    return name.lower().endswith(SUFFIXES)


def find_declaration(name: str) -> Declaration:
    """The declaration of a data set.

    Args:
        name: the data set's name, or the path of the YAML file that declares it.

    Raises:
        DatasetError: if there is none of that name, or it cannot be used.
    """
    if is_file_name(name):
        return read_declaration(Path(name).expanduser())
    packages = _packages().get(name, ())
    if own := _own().get(name):
        if name in packaged_names() or packages:
            raise DatasetError(f"there is another data set {name} than that of {own}: rename it")
        return read_declaration(own)
    if name in packaged_names():
        return read_declaration(_PACKAGED / f"{name}.yaml")
    if len(packages) > 1:
        raise DatasetError(f"{name} is declared by {' and by '.join(packages)}: uninstall one")
    if packages:
        return read_declaration(_folder_of(packages[0]) / f"{name}.yaml")
    known = dataset_names()
    meant = "".join(f", perhaps {near} was meant" for near in get_close_matches(name, known, 1))
    raise DatasetError(
        f"there is no data set {name}{meant}: choose from {', '.join(known)}, or give the path of "
        "a YAML file that declares one"
    )


def _own() -> dict[str, Path]:
    """The user's declarations by name; of two with one name, the .yaml."""
    files = [*own_folder().glob("*.yml"), *own_folder().glob("*.yaml")]
    return {file.stem: file for file in files}


@cache
def _packages() -> dict[str, tuple[str, ...]]:
    """Names that other packages declare, with the packages."""
    found: dict[str, tuple[str, ...]] = {}
    for point in entry_points(group=ENTRY_POINTS):
        found[point.name] = tuple(dict.fromkeys((*found.get(point.name, ()), point.value)))
    return found


def _folder_of(package: str) -> Path:
    try:
        spec = find_spec(package)
    except ModuleNotFoundError:
        spec = None
    if spec is None or not spec.submodule_search_locations:
        raise DatasetError(f"{package} declares data sets and is not an installed package")
    return Path(next(iter(spec.submodule_search_locations)))
