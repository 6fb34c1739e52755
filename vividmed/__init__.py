"""VividMed as a library: `annotate`, `ground`, `open_store` and `predict`.

    import vividmed

    found = vividmed.annotate("The heart is enlarged. No pleural effusion.")
    [report] = vividmed.ground("chest.dcm", "The heart is enlarged.")
    store = vividmed.open_store("data/store")

Each function does what a command does (`vividmed tag`, `preview`, `sql`, `predict`), with the same
engines and the same YAML configuration. Offsets are code points, half-open. Boxes are half-open
pixels of the stored image; masks lie on the RAS+ grid of the volume, with its affine.
`vividmed.engines` and `vividmed.datasets` have what your own engine or reader is made with.

Research use, not for clinical decisions.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from os import PathLike
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

if TYPE_CHECKING:
    from model.inference.predict import Prediction
    from storage.reading import StoreView
    from storage.records import GroundedReport
    from tasks.pipeline.one_report import AnnotatedText
    from tasks.pipeline.settings import BuildSettings

__all__ = ["annotate", "ground", "open_store", "predict"]

StrPath = str | PathLike[str]


def annotate(
    text: str, *, config: StrPath | None = None, dataset: str = "openi", **settings: Any
) -> AnnotatedText:
    """Clean a report, find the phrases that name a target of the taxonomy, and classify each.

    Args:
        text: a report, with or without headings, in English.
        config: a YAML configuration, as `vividmed build --config` takes it; the embedded engines
            without one.
        dataset: the data set whose prompts a language model is given.
        settings: single settings of the configuration, such as `taxonomy="paper"`.

    Returns:
        The cleaned text, what was removed, and the phrases: start and end (code points), target,
        assertion (`present`, `probable`, `possible`, `absent`), side, zones and count. `by_rules`
        of the text (sentences) and of each phrase says what the rules did in place of a language
        model that failed. A model's answers are kept in the store of the settings, below
        `data/store` unless `store=` names another folder, and are not asked for again.

    Raises:
        SettingsError: if the settings cannot be used.
        EngineError: if the model cannot be used, or nearly none of its answers.
    """
    from tasks.pipeline.one_report import annotate_text

    return annotate_text(text, _settings(config, dataset, settings))


def ground(
    image: StrPath | Sequence[StrPath],
    text: str,
    *,
    view: str | None = None,
    config: StrPath | None = None,
    dataset: str = "openi",
    **settings: Any,
) -> list[GroundedReport]:
    """Annotate a report and localize each finding that it states in the image.

    Args:
        image: a DICOM, PNG or JPEG radiograph, a NIfTI file, or a folder with one DICOM series of
            CT; or several images of one study.
        text: the report.
        view: DICOM view position (PA, AP, LATERAL) of radiographs whose files do not state it.
        config: as for `annotate`.
        dataset: as for `annotate`.
        settings: as for `annotate`.

    Returns:
        A report for each image that can be grounded in. A tag has its boxes (pixels of the image,
        half-open) or its mask (`tag.grounding.mask.voxels`, boolean, x, y, z in RAS+, and its
        `affine`), or the reason for which it has neither. The list is empty if the text was set
        aside, or cleaning left nothing of it.

    Raises:
        ImageError: if an image cannot be read.
        SettingsError: if the settings cannot be used.
    """
    from tasks.pipeline.one_report import ground_one, study_of

    images = [image] if isinstance(image, str | PathLike) else image
    chosen = _settings(config, dataset, settings)
    _fetch_inputs(chosen)
    study = study_of(text, [Path(file) for file in images], view)
    return list(ground_one(study, chosen).reports)


def open_store(path: StrPath, *, snapshots: Mapping[str, int] | None = None) -> StoreView:
    """Open a store that `vividmed build` or `vividmed predict --store` has written.

    Args:
        path: its folder, or `s3://bucket/prefix`.
        snapshots: the number of the version of some data sets, as `vividmed snapshots` lists them.
            Every call then reads these, and of all other data sets the version that is current
            now; `{}` holds what is current now for all. Without it, each call reads what is
            current then. `store.snapshots` names the versions that are read.

    Returns:
        Its tables as Arrow, pandas and polars, SQL over all of them, its images and masks as arrays
        with their affines.

    Raises:
        StoreError: if there is no store, or no such version.
    """
    from storage.reading import StoreView

    return StoreView.open(str(path), snapshots)


def predict(
    images: Sequence[StrPath],
    model: StrPath,
    *,
    task: Literal["report", "detect", "vqa"] = "report",
    prompt: str | None = None,
    grounded: bool | None = None,
    threshold: float = 0.5,
    batch_size: int = 4,
    max_new_tokens: int = 1024,
) -> Iterator[Prediction]:
    """Let a trained VividMed write grounded reports of images, or ask it about them.

    Args:
        images: as for `ground`; each is asked about on its own.
        model: the folder of a saved model.
        task: `report`; `detect`, to localize what the prompt lists; `vqa`, to answer a question.
        prompt: vqa: the question; detect: targets, separated by commas.
        grounded: whether it points at what the text names; not for vqa.
        threshold: probability above which a box counts, 0 to 1.
        batch_size: images at a time.
        max_new_tokens: longest answer.

    Yields:
        One prediction an image: its text, and tags with boxes and masks on the grid of the image's
        file.

    Raises:
        ImageError: if an image cannot be read.
        InferenceError: if the model cannot be loaded.
    """
    from model.inference.loading import load
    from model.inference.predict import predict as predict_images
    from model.inference.prompts import ask
    from model.inference.regions import Pointer
    from taxonomy.targets import load_taxonomy

    question = ask(task, prompt, grounded=grounded)
    network, processor = load(Path(model))
    return predict_images(
        network,
        processor,
        [Path(image) for image in images],
        question,
        Pointer(load_taxonomy(), "by-category", threshold),
        batch_size=batch_size,
        max_new_tokens=max_new_tokens,
    )


def _settings(config: StrPath | None, dataset: str, given: dict[str, Any]) -> BuildSettings:
    from tasks.pipeline.settings import make_settings, read_settings

    chosen = {"dataset": dataset, **given}
    return make_settings(chosen) if config is None else read_settings(Path(config), chosen)


def _fetch_inputs(settings: BuildSettings) -> None:
    """Bring what the engines are made from, such as the atlas's CTs, into the data folder."""
    from storage.inputs import fetch
    from tasks.pipeline.settings import inputs_of_engines

    fetch(inputs_of_engines(settings))
