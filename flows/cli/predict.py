"""The command `predict`: answers about images, on the screen and in files."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

import typer
from rich.console import Console

from flows.cli.tables import highlighted, rows_table
from model.inference.errors import InferenceError
from model.inference.prompts import Pointing, Question
from storage.images.loading import describe_image
from storage.store import Store, StoreError

if TYPE_CHECKING:
    from model.inference.records import MaskRecord, PredictionRecord, TagRecord


@dataclass(frozen=True)
class Request:
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


def predict_images(request: Request, out: Console, *, as_json: bool) -> None:
    """Answer the question about every image, print the answers and write them.

    The text of a single image appears while it is generated.

    Raises:
        InferenceError: if there is no model, it cannot be loaded, or the answers cannot be written.
        ImageError: if an image cannot be read; all headers are looked at before anything else.
    """
    if request.model is None:
        raise InferenceError(
            "no model was given: add --model with the folder of a trained one; `make overfit`"
            " trains a small one and writes it to data/overfit/model"
        )
    for path in request.images:
        describe_image(path)
    folders = _folders(request)
    store = _store(request)
    require_torch()
    live = len(request.images) == 1 and not as_json
    answers = _answers(request, request.model, folders, store, out if live else None)
    if as_json:
        _print_json(found for found, _ in answers)
    else:
        for found, folder in answers:
            _show(found, folder, out, printed=live)
    if store is not None:
        _show_store(store, request.dataset, None if as_json else out)


def _answers(
    request: Request,
    folder: Path,
    folders: Sequence[Path | None],
    store: Store | None,
    live: Console | None,
) -> Iterator[tuple[PredictionRecord, Path | None]]:
    """Answer and write, image by image, with the model in `folder`; text grows on `live`."""
    from model.inference.loading import load
    from model.inference.predict import predict
    from model.inference.records import record, write
    from model.inference.regions import Pointer
    from model.inference.storing import store_prediction
    from taxonomy.targets import load_taxonomy

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
    )
    made_by = str(folder)
    for prediction, place in zip(predictions, folders, strict=True):
        with _writing(place):
            found = write(prediction, place, made_by) if place else record(prediction, made_by)
        if store is not None:
            store_prediction(store, request.dataset, prediction, made_by)
        yield found, place


def _store(request: Request) -> Store | None:
    """The store to write to, found writable before the model's work.

    Raises:
        StoreError: if it cannot be written, or its dataset of that name was built from reports.
    """
    if request.store is None:
        return None
    store = Store(request.store)
    store.require_writable()
    if store.list(f"manifests/ingest/dataset={request.dataset}", ".json"):
        raise StoreError(
            f"{store.root} holds a dataset {request.dataset} that was built from reports: choose"
            " another --dataset for the predictions"
        )
    return store


def _show_store(store: Store, dataset: str, out: Console | None) -> None:
    """Renew the views and the page of a store, and say where the page is."""
    from dashboard.gallery import write_gallery
    from storage.catalogue import write_catalogue

    write_catalogue(store)
    page = write_gallery(store)
    if out is not None:
        shown = f"; gallery: {page}" if page else ""
        out.print(f"stored in {store.root} as {dataset}{shown}", style="dim", highlight=False)


def _print_json(records: Iterable[PredictionRecord]) -> None:
    """Print a list as it grows; it is closed even if an error or the user ends the work early."""
    before = "["
    try:
        for found in records:
            typer.echo(f"{before}\n{found.model_dump_json(indent=1)}", nl=False)
            before = ","
    finally:
        if before == ",":
            typer.echo("\n]")


def require_torch() -> None:
    """Check that the libraries of the model are there.

    Raises:
        InferenceError: if they are not.
    """
    try:
        import torch  # noqa: F401
        import transformers  # noqa: F401
    except ModuleNotFoundError as error:
        raise InferenceError(
            f"the model needs {error.name}, which is not installed: run"
            " pip install -c constraints.txt -e '.[model]'"
        ) from error


def _folders(request: Request) -> list[Path | None]:
    """Make a folder for each image, named after it; those of one name are numbered.

    This comes before the model's work: a mistake in the place shows at once.
    """
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
    try:
        yield
    except OSError as error:
        reason = error.strerror or error
        raise InferenceError(
            f"the answers cannot be written to {folder}: {reason}; choose another --output"
        ) from error


def _show(found: PredictionRecord, folder: Path | None, out: Console, *, printed: bool) -> None:
    if printed:
        out.print()
    else:
        out.rule(found.image)
        out.print(highlighted(found.text, [(t.start, t.end, "bold green") for t in found.tags]))
    if found.tags:
        columns = ("phrase", "target", "boxes", "mask")
        out.print(rows_table(columns, [_row(tag) for tag in found.tags]))
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
