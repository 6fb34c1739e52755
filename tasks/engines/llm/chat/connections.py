"""HTTP connections to one server: bounded answers, and what a connection's failure means.

A server cannot be trusted to send an answer of a sensible size, or at a sensible speed: bodies are
read in pieces and cut off, compressed ones are unpacked up to the same size, and the caller bounds
the time of the whole.
"""

from __future__ import annotations

import ssl
import zlib
from collections.abc import Mapping
from typing import NamedTuple

import httpx

from tasks.engines.llm.chat.engine import EngineError

LARGEST_BODY = 8 * 2**20
"""Bytes; the text of an answer of 100,000 tokens has about half a million."""

_ANY_ZLIB = 47
"""`wbits` of zlib for gzip and zlib streams alike, with the largest window."""


class BodyError(Exception):
    """A body that is not read: too large, or packed in an unknown way."""


class Reply(NamedTuple):
    """A response that was read whole."""

    status: int
    headers: httpx.Headers
    content: bytes


class Connections:
    """Connections to one server.

    Every request in flight has its own client with one connection: in a shared pool, httpx searches
    all connections for each request, which takes longer than the request itself.
    """

    def __init__(self, *, connect_timeout_s: float, uses_proxy: bool) -> None:
        """Proxies are those of the environment; a server nearby is reached without."""
        self._timeout = httpx.Timeout(None, connect=connect_timeout_s)
        self._uses_proxy = uses_proxy
        self._idle: list[httpx.AsyncClient] = []
        self._tls = httpx.create_ssl_context()

    async def send(
        self,
        method: str,
        url: httpx.URL | str,
        headers: Mapping[str, str],
        content: bytes | None = None,
    ) -> Reply:
        """One request; redirects are not followed.

        Raises:
            BodyError: if the answer is too large.
            httpx.RequestError: if there is no answer.
            EngineError: if the environment names a proxy that cannot be used.
        """
        client = self._idle.pop() if self._idle else self._new_client()
        try:
            async with client.stream(method, url, content=content, headers=headers) as response:
                return Reply(response.status_code, response.headers, await _body(response))
        finally:
            self._idle.append(client)

    async def close(self) -> None:
        """Close the connections that no request is using."""
        while self._idle:
            await self._idle.pop().aclose()

    def _new_client(self) -> httpx.AsyncClient:
        try:
            client = httpx.AsyncClient(
                verify=self._tls, timeout=self._timeout, trust_env=self._uses_proxy
            )
        except (ImportError, ValueError, httpx.InvalidURL) as error:
            raise EngineError(
                f"A proxy of this machine (HTTP_PROXY, HTTPS_PROXY, ALL_PROXY) cannot be used: "
                f"{error}"
            ) from error
        client.headers["Accept-Encoding"] = "identity"
        return client


def why_unreachable(error: Exception, base_url: str) -> str:
    """What to set if a connection fails for a reason that waiting does not mend; empty if none."""
    cause: BaseException | None = error
    while cause is not None:
        if isinstance(cause, ssl.SSLCertVerificationError):
            return (
                f"the certificate of {base_url} is not accepted ({cause.verify_message}): use the "
                "name that it was issued for, or set SSL_CERT_FILE to the authority's certificate"
            )
        if isinstance(cause, ssl.SSLError) and "WRONG_VERSION_NUMBER" in str(cause):
            return f"{base_url} does not speak TLS: its address begins with http://"
        if isinstance(cause, ssl.SSLError):
            return f"no TLS connection to {base_url} comes about ({cause})"
        cause = cause.__cause__ or cause.__context__
    if isinstance(error, httpx.RemoteProtocolError) and "illegal" in str(error):
        return (
            f"{base_url} does not answer in HTTP ({error}): if it expects TLS, its address begins "
            "with https://; else another service has this port"
        )
    if isinstance(error, httpx.ProxyError):
        return (
            f"the proxy of this machine (HTTP_PROXY, HTTPS_PROXY) refuses {base_url} ({error}): "
            "add the host to NO_PROXY, or correct the proxy"
        )
    return ""


async def _body(response: httpx.Response) -> bytes:
    pieces: list[bytes] = []
    size = 0
    async for piece in response.aiter_raw():
        size += len(piece)
        if size > LARGEST_BODY:
            raise BodyError(f"the answer is larger than {LARGEST_BODY / 2**20:.0f} MiB")
        pieces.append(piece)
    return _unpacked(b"".join(pieces), response.headers.get("content-encoding", "identity"))


def _unpacked(content: bytes, encoding: str) -> bytes:
    match encoding.strip().lower():
        case "" | "identity":
            return content
        case "gzip" | "x-gzip" | "deflate":
            unpacking = zlib.decompressobj(_ANY_ZLIB)
        case _:
            raise BodyError(f"the answer is packed as {encoding!r}, which was not asked for")
    try:
        unpacked = unpacking.decompress(content, LARGEST_BODY)
    except zlib.error as error:
        raise BodyError(f"the answer cannot be unpacked ({error})") from error
    if unpacking.unconsumed_tail:
        raise BodyError(f"the unpacked answer is larger than {LARGEST_BODY / 2**20:.0f} MiB")
    return unpacked
