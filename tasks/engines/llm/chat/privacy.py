"""Which addresses health data may be sent to.

Reports are covered by data-use agreements (MIMIC-CXR's forbids third parties and most hosted
models), so a server has to be this machine or one of a private network (RFC 1918, RFC 4193,
link-local) unless the configuration says otherwise. This prevents accidents, such as a
hosted service's address in a copied configuration; it is no defense against a hostile DNS server.
"""

from __future__ import annotations

import ipaddress
import socket
from urllib.parse import urlsplit

from tasks.engines.llm.chat.engine import EngineError

_PRIVATE_NETWORKS = [
    ipaddress.ip_network(block)
    for block in (
        "127.0.0.0/8 ::1/128 0.0.0.0/32 ::/128 "  # this machine
        "10.0.0.0/8 172.16.0.0/12 192.168.0.0/16 fc00::/7 "  # private networks
        "169.254.0.0/16 fe80::/10"  # this link
    ).split()
]


def is_private(base_url: str) -> bool:
    """Whether the host name resolves to addresses of this machine or private networks only."""
    try:
        return all(map(_is_private_address, _addresses(base_url)))
    except (OSError, UnicodeError):
        return False


def refuse_remote(base_url: str) -> None:
    """Refuse an address outside this machine and private networks.

    Raises:
        EngineError: if the address is remote or its name cannot be resolved.
    """
    try:
        addresses = _addresses(base_url)
    except (OSError, UnicodeError) as error:
        raise EngineError(
            f"The host of {base_url} cannot be resolved ({error}): check `base_urls`."
        ) from error
    if not all(map(_is_private_address, addresses)):
        raise EngineError(
            f"{base_url} is not on this machine or a private network, and radiology reports are "
            "health data whose use agreements forbid passing them on: serve the model locally, "
            "or set `allow_remote_endpoint: true` if your agreement covers that server."
        )


def _addresses(base_url: str) -> list[str]:
    host = urlsplit(base_url).hostname
    found = socket.getaddrinfo(host, None, type=socket.SOCK_STREAM)
    return [str(sockaddr[0]) for *_, sockaddr in found]


def _is_private_address(text: str) -> bool:
    address = ipaddress.ip_address(text.partition("%")[0])
    if isinstance(address, ipaddress.IPv6Address) and address.ipv4_mapped:
        address = address.ipv4_mapped
    return any(address in network for network in _PRIVATE_NETWORKS)
