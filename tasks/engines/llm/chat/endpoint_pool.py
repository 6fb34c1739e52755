"""The servers of one model: which one gets the next request, and recovery after one goes down."""

from __future__ import annotations

import asyncio
from collections.abc import Callable

from tasks.engines.llm.chat.capabilities import check_capabilities
from tasks.engines.llm.chat.endpoint import Endpoint
from tasks.engines.llm.chat.engine import EngineError
from tasks.engines.llm.chat.settings import ServerSettings


class EndpointPool:
    """Servers of one model; used on one event loop only.

    A server that cannot be reached gets no requests until it has passed the capability check again:
    after a restart, another version that takes a schema differently may serve its address.
    """

    def __init__(
        self,
        settings: ServerSettings,
        api_key: str | None,
        why_ended: Callable[[], str] | None = None,
    ) -> None:
        """For servers that this run started, `why_ended` says that they have ended, and why."""
        self.endpoints = [Endpoint(url, settings, api_key, why_ended) for url in settings.base_urls]
        self._settings = settings
        self._constrained = False
        self._checks: dict[Endpoint, asyncio.Task[None]] = {}
        self._unusable: dict[Endpoint, Exception] = {}
        self._changed = asyncio.Event()

    def prepare(self, constrained: bool) -> None:
        """Start the capability checks that are due; `constrained` requires JSON schemas."""
        self._unusable.clear()
        if constrained and not self._constrained:
            self._constrained = True
            for endpoint in self.endpoints:
                endpoint.up = False
        self._start_checks()

    async def choose(self, avoided: Endpoint | None = None) -> Endpoint:
        """The least busy server that is up, waiting for one if there is none.

        Args:
            avoided: the server that the request has just failed at; taken only if no other is up.

        Raises:
            EngineError: if none comes up within `server_wait_s`, or none is usable.
        """
        try:
            async with asyncio.timeout(self._settings.server_wait_s):
                while not (up := self._up()):
                    self._start_checks()
                    await self._changed.wait()
        except TimeoutError:
            self._cancel_checks()
            said = any(endpoint.not_ready_reason for endpoint in self.endpoints)
            raise EngineError(
                f"No model server answered at {', '.join(map(_with_reason, self.endpoints))} for "
                f"{self._settings.server_wait_s:g} s: {'see its log' if said else 'start it'} and "
                "run again; what was answered so far is kept."
            ) from None
        self._start_checks()
        return min(
            up,
            key=lambda endpoint: (endpoint is avoided, endpoint.is_backing_off, endpoint.in_flight),
        )

    async def close(self) -> None:
        """Cancel running capability checks and close idle connections."""
        self._cancel_checks()
        await asyncio.gather(*self._checks.values(), return_exceptions=True)
        for endpoint in self.endpoints:
            await endpoint.close()

    def _up(self) -> list[Endpoint]:
        up = [endpoint for endpoint in self.endpoints if endpoint.up]
        if not up and len(self._unusable) == len(self.endpoints):
            raise next(iter(self._unusable.values()))
        return up

    def _start_checks(self) -> None:
        """Start a check of every server that is down, not known to be unusable, and not in one."""
        self._changed.clear()
        for endpoint in self.endpoints:
            if not (endpoint.up or endpoint in self._checks or endpoint in self._unusable):
                self._checks[endpoint] = asyncio.create_task(self._check_capabilities(endpoint))

    def _cancel_checks(self) -> None:
        for task in self._checks.values():
            task.cancel()

    async def _check_capabilities(self, endpoint: Endpoint) -> None:
        constrained = self._constrained
        try:
            await check_capabilities(endpoint, self._settings, constrained)
            endpoint.up = constrained == self._constrained
        except Exception as error:  # noqa: BLE001 - raised by `choose`
            self._unusable[endpoint] = error
        finally:
            del self._checks[endpoint]
            self._changed.set()


def _with_reason(endpoint: Endpoint) -> str:
    reason = endpoint.not_ready_reason
    return endpoint.base_url + (f" (it says: {reason})" if reason else "")
