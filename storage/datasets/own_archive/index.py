"""The table of a DICOM folder: one row an image, written beside the declaration.

`images` in its folder is a link to the DICOM folder, so that every path lies below. A CT series
whose slices lie among other objects gets a folder of links to them; nothing is copied.
"""

from __future__ import annotations

import csv
import re
import shutil
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path

from storage.datasets.own_archive.checks import Checked
from storage.datasets.own_archive.dicom_folder import DicomFolder, Series
from storage.datasets.own_archive.reports import ReportTable, ReportTexts
from storage.datasets.reader import DatasetError
from storage.images.loading import check_grey, describe_image
from storage.images.types import ImageError
from storage.images.vocabulary import is_radiograph, is_volume

TABLE = "studies.csv"
_IMAGES = "images"
_SERIES = "series"


def require_replaceable(place: Path) -> None:
    """Refuse to put the table in the place of a folder that is something else.

    Raises:
        DatasetError: if there is such a folder, which may hold the archive itself.
    """
    is_ours = (place / TABLE).is_file() and (place / _IMAGES).is_symlink()
    if place.exists() and not (is_ours and not place.is_symlink()):
        raise DatasetError(
            f"{place} is in the way: the table of the DICOM studies is to be put there, beside the "
            "declaration; give the archive another name, or name another file with --output"
        )


def put_in_place(index: Path, place: Path) -> None:
    """Move a table with its links to where it belongs, in place of an earlier one.

    Raises:
        DatasetError: as `require_replaceable`.
    """
    require_replaceable(place)
    if place.exists():
        shutil.rmtree(place)  # links are removed, not what they lead to
    index.rename(place)
    place.chmod(_FOLDER_MODE)


_FOLDER_MODE = 0o755
"""A temporary folder is its maker's alone; workers of another account must read this one."""


def write_index(
    folder: Path,
    dicom: DicomFolder,
    reports: ReportTexts | ReportTable | None,
    checked: Checked,
    tick: Callable[[], None],
) -> None:
    """Write the table, and the links that it needs, into an empty folder."""
    (folder / _IMAGES).symlink_to(dicom.folder, target_is_directory=True)
    own = ("study_id", "patient_id", "image_id", "image")
    columns = (*own, *(reports.columns if reports else ()))
    with (folder / TABLE).open("w", newline="", encoding="utf-8") as stream:
        writer = csv.DictWriter(stream, columns, restval="")
        writer.writeheader()
        for study in dicom.studies():
            cells = {"study_id": dicom.name_of(study), "patient_id": dicom.patient_of(study)}
            cells |= reports.of(study) if reports else {}
            images = list(_images(folder, dicom, study, checked))
            if not images:
                checked.remark("no_images", f"study {cells['study_id']}")
            for image_id, path in images or [("", "")]:
                writer.writerow(cells | {"image_id": image_id, "image": path})
            tick()


def _images(
    folder: Path, dicom: DicomFolder, study: str, checked: Checked
) -> Iterator[tuple[str, str]]:
    """Id and path below `folder` of each image of a study; what is none is counted."""
    ids = Counter[str]()
    for series in dicom.series(study, checked):
        for name, path in _of_series(folder, series):
            where = f"study {dicom.name_of(study)}"
            try:
                described = describe_image(folder / path)
                if is_radiograph(described.modality):
                    check_grey(folder / path)
            except ImageError as error:
                said = f"{where}: {_told(error.detail, folder, path, dicom, series)}"
                if _is_no_image(series, error):
                    checked.remark("no_series_image", said)
                else:
                    checked.fault(error.reason, said)
                continue
            checked.images[described.modality] += 1
            for left_out in described.left_out:
                said = f"{where}: {_told(left_out, folder, path, dicom, series)}"
                checked.remark("not_part_of_series", said)
            ids[name] += 1
            yield (name if ids[name] == 1 else f"{name} ({ids[name]})"), path


def _told(detail: str, folder: Path, path: str, dicom: DicomFolder, series: Series) -> str:
    """What is said of an image, with the archive's own files in place of links to them."""
    if path.startswith(f"{_SERIES}/"):
        detail = detail.replace(f"{folder / path}/", "")
        detail = detail.replace(str(folder / path), f"series {series.uid}")
        files = {_link(number): name for number, name in enumerate(series.paths, start=1)}
        return _LINK.sub(lambda link: files.get(link[0], link[0]), detail)
    return detail.replace(str(folder / _IMAGES), str(dicom.folder))


def _of_series(folder: Path, series: Series) -> Iterator[tuple[str, str]]:
    if not is_volume(series.modality):
        for path in series.paths:
            yield path.rpartition("/")[2].removesuffix(".dcm"), f"{_IMAGES}/{path}"
    elif series.folder is not None:
        name = series.folder.rpartition("/")[2] or series.uid
        yield name, f"{_IMAGES}/{series.folder}".rstrip("/")
    else:
        yield series.uid, _linked(folder, series)


def _linked(folder: Path, series: Series) -> str:
    """A folder of links to the slices of a series; one object needs none."""
    if len(series.paths) == 1:
        single = f"{_IMAGES}/{series.paths[0]}"
        if _is_whole(folder / single):
            return single
    place = f"{_SERIES}/{series.uid.replace('/', '_')}"
    (folder / place).mkdir(parents=True)
    for number, path in enumerate(series.paths, start=1):
        (folder / place / _link(number)).symlink_to(Path("../..", _IMAGES, path))
    return place


def _link(number: int) -> str:
    return f"{number:05}.dcm"


_LINK = re.compile(r"\b\d{5,}\.dcm\b")


def _is_whole(path: Path) -> bool:
    """Whether a file is a volume by itself, as an enhanced CT is."""
    try:
        describe_image(path)
    except ImageError:
        return False
    return True


def _is_no_image(series: Series, error: ImageError) -> bool:
    """Whether a series is of another kind, such as a localizer or a captured page, by design."""
    few = len(series.paths) <= _LOCALIZERS
    return error.reason in ("image_unsupported", "geometry_missing") and few


_LOCALIZERS = 3
"""Objects of a series that may be a localizer, a captured page or a dose report."""
