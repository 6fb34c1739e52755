"""Cancels the waits of all threads of a run when the run ends with an error.

A thread that waits for a model server cannot be stopped from outside, and an answer may take ten
minutes. The code that starts the threads does so inside `cancel_waits_on_error`: when that block
ends with an exception, of a signal or of one shard, the other threads stop waiting at once.
"""

from __future__ import annotations

import threading
from collections.abc import Iterator
from concurrent.futures import CancelledError, Future
from contextlib import contextmanager
from contextvars import ContextVar
from typing import Any, TypeVar

T = TypeVar("T")


class RunCancelledError(Exception):
    """The wait was cancelled because the run has ended with an error elsewhere."""


class _Waits:
    """The futures that the threads of a run wait for."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._futures: set[Future[Any]] = set()
        self._cancelled = False

    def result(self, future: Future[T]) -> T:
        with self._lock:
            self._futures.add(future)
            if self._cancelled:
                future.cancel()
        try:
            return future.result()
        except CancelledError:
            raise RunCancelledError("the run has ended") from None
        except BaseException:
            future.cancel()
            raise
        finally:
            with self._lock:
                self._futures.discard(future)

    def cancel(self) -> None:
        with self._lock:
            self._cancelled = True
            for future in self._futures:
                future.cancel()


_WAITS: ContextVar[_Waits | None] = ContextVar("waits", default=None)


@contextmanager
def cancel_waits_on_error() -> Iterator[None]:
    """Cancel the waits of all contexts started inside the block if it ends with an exception."""
    waits = _Waits()
    token = _WAITS.set(waits)
    try:
        yield
    except BaseException:
        waits.cancel()
        raise
    finally:
        _WAITS.reset(token)


def cancellable_result(future: Future[T]) -> T:
    """Wait for a future; it is cancelled with the run's waits, or when this wait is interrupted.

    Raises:
        RunCancelledError: if the run's waits were cancelled.
    """
    return (_WAITS.get() or _Waits()).result(future)
