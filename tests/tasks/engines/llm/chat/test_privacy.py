"""Which addresses reports may go to."""

import socket

import pytest

from tasks.engines.llm.chat.engine import EngineError
from tasks.engines.llm.chat.privacy import is_private

NEAR = (
    "http://127.0.0.1:8000/v1 http://localhost:8000/v1 http://[::1]:8000/v1 http://10.1.2.3/v1 "
    "http://172.31.0.9/v1 http://192.168.1.1:8080/v1 http://169.254.3.4/v1 http://[fd12::1]/v1 "
    "http://[fe80::1]/v1 http://[::ffff:10.0.0.1]/v1"
)
REMOTE = (
    "http://8.8.8.8/v1 https://172.32.0.1/v1 http://100.64.0.1:8000/v1 http://192.0.2.1/v1 "
    "http://[2001:4860:4860::8888]/v1 http://[::ffff:8.8.8.8]/v1"
)


@pytest.mark.parametrize("url", NEAR.split())
def test_this_machine_and_private_networks_are_near(url):
    assert is_private(url)


@pytest.mark.parametrize("url", REMOTE.split())
def test_remote_addresses_are_refused_with_the_reason(url, engine):
    with pytest.raises(EngineError, match=r"health data whose use agreements .*allow_remote"):
        engine(url)
    engine(url, allow_remote_endpoint=True)


@pytest.mark.parametrize("addresses", [["8.8.8.8"], ["127.0.0.1", "8.8.8.8"]])
def test_a_name_is_as_near_as_the_farthest_of_its_addresses(addresses, engine, monkeypatch):
    found = [(socket.AF_INET, socket.SOCK_STREAM, 6, "", (address, 0)) for address in addresses]
    monkeypatch.setattr(socket, "getaddrinfo", lambda *_, **__: found)
    with pytest.raises(EngineError, match="agreements"):
        engine("http://localhost.example/v1")


def test_a_name_that_cannot_be_resolved(engine):
    with pytest.raises(EngineError, match=r"no-such-host\.invalid.* cannot be resolved"):
        engine("http://no-such-host.invalid/v1")
    engine("http://no-such-host.invalid/v1", allow_remote_endpoint=True)  # a proxy may know it


@pytest.mark.parametrize("url", ["127.0.0.1:8000", "ftp://a/v1", "http://user@host/v1", "http://"])
def test_what_is_no_address_is_refused_by_the_settings(url, engine):
    with pytest.raises(ValueError, match="is not an address such as"):
        engine(url)
