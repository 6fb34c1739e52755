"""All servers of an engine: who gets the next request, and what happens when one goes down."""

from __future__ import annotations

import asyncio

from tasks.engines.llm.chat.capabilities import shake_hands
from tasks.engines.llm.chat.endpoint import Endpoint
from tasks.engines.llm.chat.engine import EngineError
from tasks.engines.llm.chat.settings import ServerSettings


class Fleet:
    """Servers of one model; lives on one event loop.

    A server that cannot be reached is left out until it has passed its handshake again, since what
    comes back under its address may be another version that takes a schema otherwise.
    """

    def __init__(self, settings: ServerSettings, api_key: str | None) -> None:
        self.endpoints = [Endpoint(url, settings, api_key) for url in settings.base_urls]
        self._settings = settings
        self._constrained = False
        self._handshakes: dict[Endpoint, asyncio.Task[None]] = {}
        self._unfit: dict[Endpoint, Exception] = {}
        self._news = asyncio.Event()

    def muster(self, constrained: bool) -> None:
        """Begin handshakes where they are due; with `constrained`, schemas have to be honoured."""
        self._unfit.clear()
        if constrained and not self._constrained:
            self._constrained = True
            for endpoint in self.endpoints:
                endpoint.up = False
        self._greet()

    async def choose(self, avoided: Endpoint | None = None) -> Endpoint:
        """The least busy server that is up, waiting for one if there is none.

        Args:
            avoided: the server that the request has just failed at; taken only if no other is up.

        Raises:
            EngineError: if none comes up within `server_wait_s`, or none is fit for the work.
        """
        try:
            async with asyncio.timeout(self._settings.server_wait_s):
                while not (up := self._up()):
                    self._greet()
                    await self._news.wait()
        except TimeoutError:
            self._end_handshakes()
            raise EngineError(
                f"No model server answered at {', '.join(map(_with_trouble, self.endpoints))} for "
                f"{self._settings.server_wait_s:g} s: start it and run again; "
                "what was answered so far is kept."
            ) from None
        self._greet()
        return min(
            up, key=lambda endpoint: (endpoint is avoided, endpoint.rests, endpoint.in_flight)
        )

    async def close(self) -> None:
        """End handshakes under way and close idle connections."""
        self._end_handshakes()
        await asyncio.gather(*self._handshakes.values(), return_exceptions=True)
        for endpoint in self.endpoints:
            await endpoint.close()

    def _up(self) -> list[Endpoint]:
        up = [endpoint for endpoint in self.endpoints if endpoint.up]
        if not up and len(self._unfit) == len(self.endpoints):
            raise next(iter(self._unfit.values()))
        return up

    def _greet(self) -> None:
        """Shake hands with every server that is down, fit, and not being greeted already."""
        self._news.clear()
        for endpoint in self.endpoints:
            if not (endpoint.up or endpoint in self._handshakes or endpoint in self._unfit):
                self._handshakes[endpoint] = asyncio.create_task(self._shake_hands(endpoint))

    def _end_handshakes(self) -> None:
        for task in self._handshakes.values():
            task.cancel()

    async def _shake_hands(self, endpoint: Endpoint) -> None:
        constrained = self._constrained
        try:
            await shake_hands(endpoint, self._settings, constrained)
            endpoint.up = constrained == self._constrained
        except Exception as error:  # noqa: BLE001 - raised where a server is waited for
            self._unfit[endpoint] = error
        finally:
            del self._handshakes[endpoint]
            self._news.set()


def _with_trouble(endpoint: Endpoint) -> str:
    said = f" (it says: {endpoint.trouble})" if endpoint.trouble else ""
    return endpoint.base_url + said
