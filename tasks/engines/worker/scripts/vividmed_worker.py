"""The worker's side of VividMed's worker protocol, version 1.

An engine that needs packages of its own is a script that a Python of its own environment runs.
This file is all that it needs of VividMed: the standard library and numpy, Python 3.8 or later.
Import it, or copy it beside the script.

    from vividmed_worker import Found, Missing, Worker, serve

    class Bone(Worker):
        def segment(self, volume, prompts):
            for prompt in prompts:
                yield Found(volume.voxels > 300) if prompt == "bone" else Missing("unknown")

    if __name__ == "__main__":
        serve(Bone())

Messages are JSON objects, one a line: requests on standard input, answers on standard output.
`serve` keeps both for the protocol; what the engine prints goes to standard error, which is kept
in a log. Arrays are `.npy` files in a scratch folder, of which a message has the names.
`docs/worker-engines.md` describes every message.
"""

from __future__ import annotations

import hashlib
import json
import os
import platform
import queue
import sys
import threading
import time
import traceback
from collections.abc import Iterable, Iterator, Mapping, Sequence
from importlib import metadata
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

PROTOCOL = 1
"""Version of the protocol; the other side refuses another one."""

HEARTBEAT_S = 2.0
"""Seconds between two signs of life, also while the engine loads or works."""

_BLOCK = 1 << 20
"""Bytes of a file of weights that are read at a time for its digest."""


class Volume(NamedTuple):
    """A CT volume, or one of another modality.

    voxels: int16 (x, y, z) whose indices grow towards the patient's right, anterior and superior
        (RAS+); Hounsfield units of a CT. Mapped from a file, for reading alone.
    affine: (4, 4), voxel index to RAS millimetres, translation in the last column.
    modality: DICOM's: CT, MR, PT.
    """

    voxels: Any
    affine: Any
    modality: str

    @property
    def spacing_mm(self) -> Any:
        """Voxel size along x, y, z in mm."""
        return np.linalg.norm(self.affine[:3, :3], axis=0)


class Found(NamedTuple):
    """A mask: boolean (x, y, z) on the volume's grid; score 0 to 1, None if there is none.

    One without any voxel counts as `Missing("not_found")`.
    """

    mask: Any
    score: float | None = None


class Missing(NamedTuple):
    """Why there is no mask for a prompt.

    reason: `not_found` (looked for, nothing there), `unknown` (the engine does not know such
    prompts), or `failed`. detail: one sentence for a person.
    """

    reason: str
    detail: str = ""


class FoundBox(NamedTuple):
    """A box of a class on a film: pixels of the film as given, half-open; score 0 to 1."""

    name: str
    x_min: float
    y_min: float
    x_max: float
    y_max: float
    score: float


class Worker:
    """An engine; subclass it and give it `segment` (CT volumes) or `detect` (radiographs)."""

    def load(self, settings: Mapping[str, Any]) -> None:
        """Load the weights; called once, before any request.

        settings: the engine's section of the configuration, and `device`, `cpu` or `cuda`.
        """

    def segment(self, volume: Volume, prompts: Sequence[str]) -> Iterable[Found | Missing]:
        """One answer for each prompt, order kept.

        A generator keeps memory at one mask: each is written when it comes.
        """
        raise NotImplementedError("this worker segments no volumes")

    def detect(self, films: Sequence[Any], names: Sequence[str]) -> Sequence[Sequence[FoundBox]]:
        """The boxes on each film.

        films: float32 (rows, columns), 0 to 1, bright is dense; they may differ in size.
        names: the classes that are asked for; boxes of others are of no use, and do no harm.
        """
        raise NotImplementedError("this worker reads no films")


def serve(worker: Worker) -> None:
    """Answer requests until standard input is closed."""
    channel = _Channel()
    start = channel.read()
    if start is None:
        return
    channel.send({"type": "hello", "protocol": PROTOCOL, "python": platform.python_version()})
    if start.get("type") != "start" or start.get("protocol") != PROTOCOL:
        asked = start.get("protocol")
        detail = f"the worker speaks protocol {PROTOCOL}, and was asked for {asked}"
        channel.send({"type": "fatal", "detail": detail})
        return
    beats = _Heartbeats(channel)
    try:
        weights = {name: digest_of(Path(name)) for name in start["weights"]}
        worker.load(start["settings"])
        versions = {name: version_of(name) for name in start["packages"]}
    except BaseException as error:  # noqa: BLE001 whatever it is, it must be told
        traceback.print_exc()
        channel.send({"type": "fatal", "detail": _sentence(error)})
        return
    channel.send({"type": "ready", "versions": versions, "weights": weights})
    scratch = Path(start["scratch"])
    while (request := channel.read()) is not None:
        beats.begin(request["id"])
        try:
            body = _answer(worker, request, scratch)
            reply = {"type": "answer", "id": request["id"], **body}
        except KeyboardInterrupt:
            raise
        # SystemExit too: some libraries end their caller.
        except BaseException as error:  # noqa: BLE001 the next request may go well
            traceback.print_exc()
            for left in scratch.glob(f"answer-{request['id']}-*.npy"):
                left.unlink()
            reply = {
                "type": "failure",
                "id": request["id"],
                "reason": "out_of_memory" if is_out_of_memory(error) else "failed",
                "detail": _sentence(error),
            }
        beats.begin(None)
        channel.send(reply)
        if "CUDA error" in str(reply.get("detail")):
            return  # the context of the GPU is lost; a new process gets another one


def digest_of(path: Path) -> str:
    """SHA-256 in hexadecimal of a file.

    Of a folder, that over the lines `<path> <SHA-256>` of all files below it, sorted, each path
    relative to the folder; files whose names, or those of whose folders, begin with a dot are left
    out. `missing` where there is nothing.
    """
    if path.is_file():
        found = hashlib.sha256()
        with path.open("rb") as stream:
            while block := stream.read(_BLOCK):
                found.update(block)
        return found.hexdigest()
    if not path.is_dir():
        return "missing"
    inside = [file.relative_to(path) for file in path.rglob("*") if file.is_file()]
    names = sorted(name.as_posix() for name in inside if not _is_hidden(name))
    lines = "\n".join(f"{name} {digest_of(path / name)}" for name in names)
    return hashlib.sha256(lines.encode()).hexdigest()


def _is_hidden(name: Path) -> bool:
    return any(part.startswith(".") for part in name.parts)


def version_of(package: str) -> str:
    """The installed version of a distribution, or `none`."""
    try:
        return metadata.version(package)
    except metadata.PackageNotFoundError:
        return "none"


class _Channel:
    """Standard input and output, taken away from everything else in this process."""

    def __init__(self) -> None:
        self._out = os.fdopen(os.dup(1), "w", encoding="utf-8")
        self._in = os.fdopen(os.dup(0), encoding="utf-8")
        os.dup2(2, 1)  # prints, of C libraries too, go to the log
        nothing = os.open(os.devnull, os.O_RDONLY)
        os.dup2(nothing, 0)
        os.close(nothing)
        sys.stdout = sys.stderr
        self._lock = threading.Lock()
        self._lines: queue.Queue[str] = queue.Queue()
        threading.Thread(target=self._listen, daemon=True).start()

    def _listen(self) -> None:
        for line in self._in:
            self._lines.put(line)
        self._lines.put("")

    def read(self) -> dict[str, Any] | None:
        """The next message; None once the other side has closed the line."""
        line = self._lines.get()
        return json.loads(line) if line else None

    def send(self, message: Mapping[str, Any]) -> None:
        with self._lock:
            self._out.write(json.dumps(message, separators=(",", ":")) + "\n")
            self._out.flush()


class _Heartbeats:
    """Tells every few seconds that the process lives, and for how long it has been at a request."""

    def __init__(self, channel: _Channel) -> None:
        self._channel = channel
        self._at: tuple[int | None, float] = None, time.monotonic()
        threading.Thread(target=self._beat, daemon=True).start()

    def begin(self, request: int | None) -> None:
        self._at = request, time.monotonic()

    def _beat(self) -> None:
        while True:
            time.sleep(HEARTBEAT_S)
            request, since = self._at
            seconds = round(time.monotonic() - since, 1)
            self._channel.send({"type": "heartbeat", "id": request, "seconds": seconds})


def _answer(worker: Worker, request: Mapping[str, Any], scratch: Path) -> dict[str, Any]:
    if request["do"] == "segment":
        (name,) = request["volume"]
        voxels = _array(scratch, name)
        affine = np.array(request["affine"], np.float64).reshape(4, 4)
        volume = Volume(voxels, affine, request["modality"])
        answers = iter(worker.segment(volume, request["prompts"]))
        return {"answers": list(_masks(answers, request, voxels.shape, scratch))}
    if request["do"] == "detect":
        films = [_array(scratch, name) for name in request["films"]]
        found = worker.detect(films, request["names"])
        return {"films": [[_row(box) for box in boxes] for boxes in found]}
    raise ValueError(f"there is no request {request['do']!r} in protocol {PROTOCOL}")


def _masks(
    answers: Iterator[Found | Missing],
    request: Mapping[str, Any],
    shape: tuple[int, ...],
    scratch: Path,
) -> Iterator[dict[str, Any]]:
    """Each mask is written before the next is made, cut to the box around its voxels."""
    for number, answer in enumerate(answers):
        if isinstance(answer, Missing):
            yield {"reason": answer.reason, "detail": answer.detail}
            continue
        mask = np.asarray(answer.mask)
        if mask.shape != tuple(shape):
            raise ValueError(f"a mask has the shape {mask.shape}, the volume {tuple(shape)}")
        window = _window(mask)
        if window is None:
            yield {"reason": "not_found", "detail": "the engine's mask has no voxel"}
            continue
        name = f"answer-{request['id']}-{number}.npy"
        np.save(scratch / name, np.ascontiguousarray(mask[window], dtype=bool))
        score = None if answer.score is None else float(answer.score)
        yield {"mask": name, "start": [part.start for part in window], "score": score}


def _window(mask: Any) -> tuple[slice, ...] | None:
    """The box around what is set; None if nothing is."""
    slices = []
    for axis in range(mask.ndim):
        others = tuple(other for other in range(mask.ndim) if other != axis)
        (at,) = np.nonzero(mask.any(axis=others))
        if not at.size:
            return None
        slices.append(slice(int(at[0]), int(at[-1]) + 1))
    return tuple(slices)


def _row(box: FoundBox) -> list[Any]:
    return [box.name, *(float(value) for value in box[1:])]


def _array(scratch: Path, name: str) -> Any:
    return np.load(scratch / Path(name).name, mmap_mode="r")


def is_out_of_memory(error: BaseException) -> bool:
    """Whether memory was lacking, of the machine or of a GPU: the image may well go later."""
    return isinstance(error, MemoryError) or "out of memory" in str(error).lower()


def _sentence(error: BaseException) -> str:
    return f"{type(error).__name__}: {' '.join(str(error).split())}"[:500]
