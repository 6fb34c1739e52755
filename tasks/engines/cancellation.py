"""What the threads of a run wait for, so that one of them can call off the waits of all.

A thread that waits for a model server cannot be ended from outside, and its answer may take ten
minutes. Whoever starts threads wraps them in `waits_end_together`: when that block ends by an
exception, be it a signal's or that of one shard, the others stop waiting at once.
"""

from __future__ import annotations

import threading
from collections.abc import Iterator
from concurrent.futures import CancelledError, Future
from contextlib import contextmanager
from contextvars import ContextVar
from typing import Any, TypeVar

T = TypeVar("T")


class CalledOffError(Exception):
    """What was waited for is not wanted any more: the run has ended for another reason."""


class _Waits:
    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._futures: set[Future[Any]] = set()
        self._called_off = False

    def result(self, future: Future[T]) -> T:
        with self._lock:
            self._futures.add(future)
            if self._called_off:
                future.cancel()
        try:
            return future.result()
        except CancelledError:
            raise CalledOffError("the run has ended") from None
        except BaseException:
            future.cancel()
            raise
        finally:
            with self._lock:
                self._futures.discard(future)

    def call_off(self) -> None:
        with self._lock:
            self._called_off = True
            for future in self._futures:
                future.cancel()


_WAITS: ContextVar[_Waits | None] = ContextVar("waits", default=None)


@contextmanager
def waits_end_together() -> Iterator[None]:
    """Call off all waits in contexts started inside the block when it ends by an exception."""
    waits = _Waits()
    token = _WAITS.set(waits)
    try:
        yield
    except BaseException:
        waits.call_off()
        raise
    finally:
        _WAITS.reset(token)


def result_of(future: Future[T]) -> T:
    """Wait for a future; when the waits are called off or the wait is broken, it is cancelled.

    Raises:
        CalledOffError: if the surrounding run has ended.
    """
    return (_WAITS.get() or _Waits()).result(future)
