"""Decode images ahead of the engine that reads them, in batches of bounded size."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from typing import TypeVar

from storage.images.types import ImageError

Item = TypeVar("Item")
Decoded = TypeVar("Decoded")
Answer = TypeVar("Answer")


def map_decoded(
    use: Callable[[Sequence[tuple[Item, Decoded | ImageError]]], Iterable[Answer]],
    items: Iterable[Item],
    decode: Callable[[Item], Decoded],
    batch_size: int = 1,
) -> Iterator[Answer]:
    """What `use` answers about the items, batch after batch; order kept.

    While `use` works on a batch, a thread decodes the next one. A batch is let go before the batch
    after the next is begun, so at most 2 × `batch_size` images are in memory: a CT volume may take
    300 MB (512 × 512 × 600 voxels of int16).

    Args:
        use: gets up to `batch_size` items, each with its image or why it cannot be read.
        items: what to decode.
        decode: gives the image of an item, or raises ImageError.
        batch_size: items at a time.

    Raises:
        Exception: whatever else `decode` raises, when its item's turn comes.
    """
    left = iter(items)
    waiting: deque[tuple[Item, Future[Decoded | ImageError]]] = deque()

    def decode_or_fault(item: Item) -> Decoded | ImageError:
        try:
            return decode(item)
        except ImageError as error:
            return error

    with ThreadPoolExecutor(max_workers=1, thread_name_prefix="decode") as pool:

        def begin_batch() -> None:
            for item in _up_to(batch_size, left):
                waiting.append((item, pool.submit(decode_or_fault, item)))

        try:
            begin_batch()
            while waiting:
                batch = [(item, future.result()) for item, future in waiting]
                waiting.clear()
                begin_batch()
                answers = use(batch)
                del batch
                yield from answers
        finally:
            for _, future in waiting:
                future.cancel()


def _up_to(count: int, items: Iterator[Item]) -> Iterator[Item]:
    for _, item in zip(range(count), items, strict=False):
        yield item
