"""The tensors of a checkpoint, read one at a time, or only their shapes and dtypes.

A folder in Hugging Face's layout (one file, or several with an index) or one file: safetensors or
PyTorch's pickle format, which is read without executing code (`weights_only`).
"""

from __future__ import annotations

import json
import pickle
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from torch import Tensor
from transformers.modeling_utils import str_to_torch_dtype

TensorReader = Callable[[str], Tensor]

ZIP_SIGNATURE = b"PK\x03\x04"
INDEXES = ("model.safetensors.index.json", "pytorch_model.bin.index.json")
SINGLE_FILES = (
    "model.safetensors",
    "pytorch_model.bin",
    "adapter_model.safetensors",
    "adapter_model.bin",
)


class CheckpointError(ValueError):
    """A checkpoint that cannot be used; the message says which, why and how to fix it."""


class Weights(Mapping[str, Tensor]):
    """The tensors of one checkpoint by key, in the order of its files.

    A tensor is read on access, and one file is open at a time: a pass over a model of many files
    never holds more than one of them in memory.

    Args:
        path: the folder or file of a checkpoint.
        headers: return tensors on the meta device, with shape and dtype but without values.

    Raises:
        CheckpointError: if the checkpoint is missing, damaged, incomplete or unsafe.
    """

    def __init__(self, path: Path, *, headers: bool = False) -> None:
        self.path = path
        self._headers = headers
        self._open_file: tuple[Path, Mapping[str, TensorReader]] | None = None
        self._file_of = self._locate()

    def __getitem__(self, key: str) -> Tensor:
        file = self._file_of[key]
        readers = self._readers(file)
        if key not in readers:
            raise CheckpointError(f"{file} lacks {key}, which its index lists: fetch it again")
        return readers[key](key)

    def __iter__(self) -> Iterator[str]:
        return iter(self._file_of)

    def __len__(self) -> int:
        return len(self._file_of)

    def _locate(self) -> dict[str, Path]:
        if self.path.is_file():
            return dict.fromkeys(self._readers(self.path), self.path)
        if not self.path.is_dir():
            raise CheckpointError(f"{self.path} does not exist: give a checkpoint's file or folder")
        for name in INDEXES:
            if (self.path / name).is_file():
                return _read_index(self.path / name)
        for name in SINGLE_FILES:
            if (self.path / name).is_file():
                return dict.fromkeys(self._readers(self.path / name), self.path / name)
        raise CheckpointError(
            f"{self.path} holds no weights: none of {', '.join((*INDEXES, *SINGLE_FILES))}"
        )

    def _readers(self, file: Path) -> Mapping[str, TensorReader]:
        if self._open_file is None or self._open_file[0] != file:
            read = _open_safetensors if file.suffix == ".safetensors" else _open_pickle
            self._open_file = (file, read(file, self._headers))
        return self._open_file[1]


def _read_index(index: Path) -> dict[str, Path]:
    try:
        file_of: dict[str, str] = json.loads(index.read_text("utf-8"))["weight_map"]
        # Sorted by file, so that each is opened once; bare file names, so that an index cannot name
        # a file outside the folder.
        in_order = sorted(file_of.items(), key=lambda entry: entry[1])
        files = {key: index.parent / Path(file).name for key, file in in_order}
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise CheckpointError(f"{index} is not an index of weights: fetch it again") from error
    lacking = sorted({path.name for path in files.values() if not path.is_file()})
    if lacking:
        raise CheckpointError(f"{index.parent} lacks {', '.join(lacking)}: fetch what is missing")
    return files


def _open_safetensors(file: Path, headers: bool) -> Mapping[str, TensorReader]:
    try:
        # "np" for headers: "pt" maps the whole file, which fails on a machine with less memory.
        handle = safe_open(file, framework="np" if headers else "pt")
    except (SafetensorError, OSError, RuntimeError) as error:
        raise CheckpointError(f"{file} is damaged or cannot be read here: {error}") from error

    def header(key: str) -> Tensor:
        entry = handle.get_slice(key)
        dtype = str_to_torch_dtype[entry.get_dtype()]
        return torch.empty(entry.get_shape(), dtype=dtype, device="meta")

    return dict.fromkeys(handle.keys(), header if headers else handle.get_tensor)


def _open_pickle(file: Path, headers: bool) -> Mapping[str, TensorReader]:
    content = _unpickle(file, "meta" if headers else "cpu")
    if isinstance(content, Mapping) and isinstance(content.get("state_dict"), Mapping):
        content = content["state_dict"]  # training runs store the optimizer's state beside it
    if not isinstance(content, Mapping):
        raise CheckpointError(
            f"{file} holds no dictionary of weights, but a {type(content).__name__}"
        )
    tensors = {str(key): value for key, value in content.items() if isinstance(value, Tensor)}
    return dict.fromkeys(tensors, tensors.__getitem__)


def _unpickle(file: Path, device: str) -> Any:
    try:
        # Memory-mapped, a tensor takes memory only while it is read.
        mapped = _is_zip(file)
        return torch.load(file, map_location=device, mmap=mapped, weights_only=True)
    except pickle.UnpicklingError as error:
        raise CheckpointError(_unsafe(file, str(error))) from error
    except Exception as error:
        # Bytes that are no pickle can raise nearly any exception.
        reason = str(error).partition("\n")[0] or type(error).__name__
        raise CheckpointError(f"{file} is damaged or cannot be read here: {reason}") from error


def _is_zip(file: Path) -> bool:
    # Files of PyTorch before 1.6 are no zip archives and cannot be memory-mapped.
    with file.open("rb") as stream:
        return stream.read(len(ZIP_SIGNATURE)) == ZIP_SIGNATURE


def _unsafe(file: Path, message: str) -> str:
    _, found, rest = message.partition("Unsupported global: GLOBAL ")
    if not found:
        return f"{file} is damaged or no PyTorch file: fetch it again"
    return (
        f"{file} holds Python objects ({rest.split()[0]}), which can run code when they are read:"
        " if you trust it, save its weights alone to another file and give that"
    )
