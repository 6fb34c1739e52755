"""`vividmed predict`: answers of a trained model about images, on the screen and in files."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

import typer

from flows.cli.options import JsonOption, notes, out, rule

if TYPE_CHECKING:
    from rich.console import Console

    from model.inference.prompts import Pointing, Question
    from model.inference.records import MaskRecord, PredictionRecord, TagRecord
    from storage.images.types import ImageError
    from storage.store import Store


def predict(
    images: Annotated[
        list[Path], typer.Argument(help="DICOM, PNG, JPEG, NIfTI; folders of a DICOM series.")
    ],
    model: Annotated[Path | None, typer.Option(help="Folder of a trained model.")] = None,
    task: Annotated[
        Literal["report", "detect", "vqa"], typer.Option(help="What to ask of each image.")
    ] = "report",
    prompt: Annotated[
        str | None,
        typer.Option(help="vqa: the question; detect: targets, separated by commas."),
    ] = None,
    output: Annotated[
        Path | None, typer.Option(help="Folder for JSON, masks (NIfTI, PNG) and overlays.")
    ] = None,
    grounded: Annotated[
        bool | None,
        typer.Option("--grounded/--plain", help="Point at what the text names; not for vqa."),
    ] = None,
    pointing: Annotated[
        Literal["by-category", "masks", "boxes", "both"],
        typer.Option(help="By category: masks for anatomy, boxes for abnormalities."),
    ] = "by-category",
    threshold: Annotated[
        float, typer.Option(min=0, max=1, help="Probability above which a box counts.")
    ] = 0.5,
    batch_size: Annotated[int, typer.Option(min=1, help="Images at a time.")] = 4,
    max_new_tokens: Annotated[int, typer.Option(min=1, help="Longest answer, in tokens.")] = 1024,
    store: Annotated[
        str | None, typer.Option(help="Also write grounded reports to this store (path or URI).")
    ] = None,
    dataset: Annotated[
        str, typer.Option(help="Name of the predictions in the store.")
    ] = "predictions",
    as_json: JsonOption = False,
) -> None:
    """Write grounded reports of images with a trained model, or ask it about them."""
    from model.inference.prompts import ask

    request = _Request(
        images=images,
        question=ask(task, prompt, grounded=grounded),
        model=model,
        folder=output,
        pointing=pointing,
        threshold=threshold,
        batch_size=batch_size,
        max_new_tokens=max_new_tokens,
        store=store,
        dataset=dataset,
    )
    _predict_images(request, as_json=as_json)


@dataclass(frozen=True)
class _Request:
    """What is asked of a model.

    model: the folder of a saved one.
    folder: where the answers are written, each in a folder of its own; None: nowhere.
    store, dataset: the store that they are written to as grounded reports, if any, and under
        which name; the gallery and the catalogue are renewed.
    """

    images: Sequence[Path]
    question: Question
    model: Path | None
    folder: Path | None
    pointing: Pointing
    threshold: float
    batch_size: int
    max_new_tokens: int
    store: str | None = None
    dataset: str = "predictions"


@dataclass
class _Skipped:
    """Images that cannot be read, each told when it is met."""

    errors: dict[Path, ImageError] = field(default_factory=dict)

    def __call__(self, path: Path, error: ImageError) -> None:
        self.errors[path] = error
        notes.print(f"skipped: {error}")

    def as_json(self) -> list[dict[str, str]]:
        return [
            {"image": str(path), "error": error.reason, "detail": str(error)}
            for path, error in self.errors.items()
        ]


def _readable(images: Sequence[Path], skip: _Skipped) -> list[Path]:
    """The images whose headers can be read; what is left out of a series is told."""
    from storage.images.loading import describe_image
    from storage.images.types import ImageError

    readable = []
    for path in images:
        try:
            description = describe_image(path)
        except ImageError as error:
            skip(path, error)
            continue
        readable.append(path)
        for said in description.left_out:
            notes.print(f"{path}: {said}: left out")
    return readable


def _predict_images(request: _Request, *, as_json: bool) -> None:
    """Answer the question about every image, print the answers and write them.

    The text of a single image appears while it is generated.

    An image that cannot be read is told and skipped; all headers are looked at before anything
    else.

    Raises:
        InferenceError: if there is no model, it cannot be loaded, or the answers cannot be written;
            at the end, if an image was skipped.
    """
    from model.inference.errors import InferenceError

    if request.model is None:
        raise InferenceError(
            "no model was given: add --model with the folder of a trained one; `make overfit`"
            " trains a small one and writes it to data/overfit/model"
        )
    skipped = _Skipped()
    usable = replace(request, images=_readable(request.images, skipped))
    folders = _folders(usable)
    store = _store(request)
    require_torch()
    live = len(request.images) == 1 and not as_json
    console = out if live else None
    answers = _answers(usable, request.model, folders, store, console, skipped)
    if as_json:
        _print_json((found for found, _ in answers), skipped)
    else:
        for found, folder in answers:
            _show(found, folder, printed=live)
    if store is not None:
        _show_store(store, request.dataset, silent=as_json)
    for path, folder in zip(usable.images, folders, strict=True):
        if path in skipped.errors and folder is not None and not any(folder.iterdir()):
            folder.rmdir()  # made before the image turned out to be damaged
    if skipped.errors:
        raise InferenceError(
            f"{len(skipped.errors)} of {len(request.images)} images could not be read, see above"
        )


def _answers(
    request: _Request,
    folder: Path,
    folders: Sequence[Path | None],
    store: Store | None,
    live: Console | None,
    skip: _Skipped,
) -> Iterator[tuple[PredictionRecord, Path | None]]:
    """Answer and write, image by image, with the model in `folder`; text grows on `live`.

    No model is loaded if no image is left.
    """
    from model.inference.loading import load
    from model.inference.predict import predict
    from model.inference.records import record, write
    from model.inference.regions import Pointer
    from model.inference.storing import Predictor, store_prediction
    from storage.digests import content_digests
    from taxonomy.targets import load_taxonomy

    if not request.images:
        return
    model, processor = load(folder)
    predictions = predict(
        model,
        processor,
        request.images,
        request.question,
        Pointer(load_taxonomy(), request.pointing, request.threshold),
        batch_size=request.batch_size,
        max_new_tokens=request.max_new_tokens,
        write=None
        if live is None
        else partial(live.print, end="", highlight=False, soft_wrap=True),
        skip=skip,
    )
    made_by = str(folder)
    predictor = (
        None
        if store is None
        else Predictor(
            model=str(folder.resolve()),  # one model, however its path is written
            weights=content_digests([folder])[folder],
            pointing=request.pointing,
            threshold=request.threshold,
            max_new_tokens=request.max_new_tokens,
        )
    )
    places = iter(zip(request.images, folders, strict=True))
    for prediction in predictions:
        # Predictions come in the order of the images, of which some were skipped.
        place = next(place for path, place in places if path == prediction.path)
        with _writing(place):
            found = write(prediction, place, made_by) if place else record(prediction, made_by)
        if store is not None and predictor is not None:
            store_prediction(store, request.dataset, prediction, predictor)
        yield found, place


def _store(request: _Request) -> Store | None:
    """The store to write to, found writable before the model's work.

    Raises:
        StoreError: if it cannot be written, its dataset of that name was built from reports, or
            the name cannot be part of a path.
    """
    from storage.datasets.declaration import NAME_RULE, is_usable_in_paths
    from storage.manifests import manifest_paths
    from storage.store import Store, StoreError

    if request.store is None:
        return None
    if not is_usable_in_paths(request.dataset):
        raise StoreError(f"--dataset {request.dataset!r}: {NAME_RULE}")
    store = Store(request.store)
    store.require_writable()
    if manifest_paths(store, request.dataset, "ingest"):
        raise StoreError(
            f"{store.root} holds a dataset {request.dataset} that was built from reports: choose"
            " another --dataset for the predictions"
        )
    return store


def _show_store(store: Store, dataset: str, *, silent: bool) -> None:
    """Renew the views and the page of a store, and say where the page is."""
    from dashboard.gallery import write_gallery
    from storage.catalogue import write_catalogue

    write_catalogue(store)
    page = write_gallery(store)
    if not silent:
        shown = f"; gallery: {page}" if page else ""
        out.print(f"stored in {store.root} as {dataset}{shown}", style="dim", highlight=False)


def _print_json(records: Iterable[PredictionRecord], skipped: _Skipped) -> None:
    """Print a list as it grows; it is closed even if an error or the user ends the work early.

    Images that were skipped come last.
    """
    from flows.cli.json_output import to_json

    before = "["
    try:
        for found in records:
            text = to_json(found.model_dump(mode="json"), indent=1)
            typer.echo(f"{before}\n{text}", nl=False)
            before = ","
    finally:
        for entry in skipped.as_json():
            typer.echo(f"{before}\n{to_json(entry, indent=1)}", nl=False)
            before = ","
        if before == ",":
            typer.echo("\n]")


def require_torch() -> None:
    """Check that the libraries of the model are there.

    Raises:
        InferenceError: if they are not.
    """
    from model.inference.errors import InferenceError

    try:
        import torch  # noqa: F401
        import transformers  # noqa: F401
    except ModuleNotFoundError as error:
        raise InferenceError(
            f"the model needs {error.name}, which is not installed: run"
            " pip install -c constraints.txt -e '.[model]'"
        ) from error


def _folders(request: _Request) -> list[Path | None]:
    """Make a folder for each image, named after it; those of one name are numbered.

    This comes before the model's work: a mistake in the place shows at once.
    """
    from model.inference.errors import InferenceError

    if request.folder is None:
        return [None] * len(request.images)
    folders = [request.folder / name for name in _names(request.images)]
    read = {path.resolve() for path in request.images}
    for folder in folders:
        if folder.resolve() in read:
            raise InferenceError(
                f"the answers would be written into {folder}, which is one of the images: choose"
                " another --output"
            )
        with _writing(folder):
            folder.mkdir(parents=True, exist_ok=True)
    return [*folders]


def _names(images: Sequence[Path]) -> list[str]:
    names: list[str] = []
    for path in images:
        # A series is often in a folder named by its UID: what follows the last dot is no suffix.
        stem = path.name.removesuffix(".gz").rsplit(".", 1)[0]
        stem = path.resolve().name if path.is_dir() else stem or path.name
        twins = sum(name == stem or name.startswith(f"{stem}~") for name in names)
        names.append(f"{stem}~{twins + 1}" if twins else stem)
    return names


@contextmanager
def _writing(folder: Path | None) -> Iterator[None]:
    from model.inference.errors import InferenceError

    try:
        yield
    except OSError as error:
        reason = error.strerror or error
        raise InferenceError(
            f"the answers cannot be written to {folder}: {reason}; choose another --output"
        ) from error


def _show(found: PredictionRecord, folder: Path | None, *, printed: bool) -> None:
    from flows.cli.fitting import print_table
    from flows.cli.tables import highlighted, rows_table

    if printed:
        out.print()
    else:
        rule(found.image)
        out.print(highlighted(found.text, [(t.start, t.end, "bold green") for t in found.tags]))
    if found.tags:
        columns = ("phrase", "target", "boxes", "mask")
        print_table(rows_table(columns, [_row(tag) for tag in found.tags]), out)
    if not found.complete:
        out.print("the answer stops here, --max-new-tokens allows no more", style="yellow")
    where = f"written to {folder}; " if folder else ""
    out.print(f"{where}{found.notice}", style="dim", highlight=False)


def _row(tag: TagRecord) -> tuple[str, str, str, str]:
    boxes, mask = "", ""
    if tag.boxes is not None:
        lines = [f"[{' '.join(f'{n:.0f}' for n in box.box)}] {box.score:.2f}" for box in tag.boxes]
        boxes = "\n".join(lines) or "none"
    if tag.mask is not None:
        mask = _size(tag.mask) if tag.mask.voxel_count else "empty"
    return tag.phrase, tag.target or "", boxes, mask


def _size(mask: MaskRecord) -> str:
    if mask.volume_mm3 is None:
        return f"{mask.voxel_count:,} pixels"
    return f"{mask.volume_mm3 / 1000:.1f} ml"
