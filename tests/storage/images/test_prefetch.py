import gc
import threading
import weakref
from collections.abc import Sequence

import pytest

from storage.images.prefetch import map_decoded
from storage.images.types import ImageError


class _Image:
    def __init__(self, number: int) -> None:
        self.number = number


def _numbers(batch: Sequence[tuple[int, _Image | ImageError]]) -> list[int]:
    return [item for item, _ in batch]


@pytest.mark.parametrize("batch_size", [1, 2, 3, 8])
def test_every_item_is_used_once_and_in_order(batch_size: int) -> None:
    sizes: list[int] = []

    def use(batch: Sequence[tuple[int, _Image | ImageError]]) -> list[int]:
        sizes.append(len(batch))
        return [image.number for _, image in batch if isinstance(image, _Image)]

    assert list(map_decoded(use, range(7), _Image, batch_size)) == list(range(7))
    assert max(sizes) == min(batch_size, 7)


def test_the_next_image_is_decoded_while_one_is_in_use() -> None:
    second_was_decoded = threading.Event()

    def decode(number: int) -> _Image:
        if number == 1:
            second_was_decoded.set()
        return _Image(number)

    def use(batch: Sequence[tuple[int, _Image | ImageError]]) -> list[bool]:
        return [second_was_decoded.wait(timeout=60)]

    assert list(map_decoded(use, range(3), decode)) == [True, True, True]


@pytest.mark.parametrize("batch_size", [1, 3])
def test_images_in_memory_are_bounded(batch_size: int) -> None:
    alive: weakref.WeakSet[_Image] = weakref.WeakSet()
    most = 0

    def decode(number: int) -> _Image:
        nonlocal most
        image = _Image(number)
        alive.add(image)
        gc.collect()
        most = max(most, len(alive))
        return image

    assert list(map_decoded(_numbers, range(20), decode, batch_size)) == list(range(20))
    assert most <= 2 * batch_size


def test_an_unreadable_image_does_not_end_the_others() -> None:
    def decode(number: int) -> _Image:
        if number == 1:
            raise ImageError("image_unreadable", "cut short")
        return _Image(number)

    def use(batch: Sequence[tuple[int, _Image | ImageError]]) -> list[bool]:
        return [isinstance(image, ImageError) for _, image in batch]

    assert list(map_decoded(use, range(3), decode)) == [False, True, False]


def test_another_error_reaches_the_caller_and_no_thread_is_left() -> None:
    def decode(number: int) -> _Image:
        raise RuntimeError("a bug")

    with pytest.raises(RuntimeError, match="a bug"):
        list(map_decoded(_numbers, range(3), decode))
    assert not [t for t in threading.enumerate() if t.name.startswith("decode")]
