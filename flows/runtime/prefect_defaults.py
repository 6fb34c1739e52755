"""Prefect's settings for runs started by hand, set before Prefect is imported.

A run from the command line shows its own progress and reports errors in a sentence, so Prefect
keeps quiet; its database stays in the project's data folder, away from the user's profile. Whatever
the user has set wins.
"""

from __future__ import annotations

import os
from collections.abc import Callable

from storage.inputs import home

_CPU_SHARDS = 2
"""More at once gain little time, and a CT volume of each is in memory."""

LOOPBACK = ("127.0.0.1", "localhost", "::1")


_PROXIES = ("HTTP_PROXY", "HTTPS_PROXY", "ALL_PROXY")
"""Environment variables of proxies, which may also be in lower case."""


def quiet_prefect(report: Callable[[str], None] = lambda _: None) -> None:
    """Set what the user has not set.

    Args:
        report: gets one sentence about each proxy that is left out, since it cannot be used.
    """
    defaults = {
        "PREFECT_HOME": str(home() / "prefect"),
        "PREFECT_SERVER_ANALYTICS_ENABLED": "false",
        "DO_NOT_TRACK": "1",
        "PREFECT_LOGGING_LEVEL": "CRITICAL",
        "PREFECT_SERVER_LOGGING_LEVEL": "CRITICAL",
        "PREFECT_SERVER_UI_ENABLED": "false",
    }
    for name, value in defaults.items():
        os.environ.setdefault(name, value)
    _leave_unusable_proxies_out(report)
    _bypass_proxies_on_loopback()


def cpu_shards() -> int:
    """Shards that this machine's CPU takes at once.

    As many as the threads of the task runner, where the user has set Prefect's
    `PREFECT_TASKS_RUNNER_THREAD_POOL_MAX_WORKERS`.
    """
    from prefect.settings import get_current_settings

    return get_current_settings().tasks.runner.thread_pool_max_workers or _CPU_SHARDS


def _bypass_proxies_on_loopback() -> None:
    """A proxy, which many hospitals set, cannot reach a server on this machine."""
    for name in ("NO_PROXY", "no_proxy"):
        kept = [host for host in os.environ.get(name, "").split(",") if host.strip()]
        os.environ[name] = ",".join(dict.fromkeys([*kept, *LOOPBACK]))


def _leave_unusable_proxies_out(report: Callable[[str], None]) -> None:
    """Prefect's client would not even be made, though its server needs no proxy."""
    for name in [name for upper in _PROXIES for name in (upper, upper.lower())]:
        if (address := os.environ.get(name)) and (fault := _proxy_fault(address)):
            report(f"{name} = {address} is left out, this proxy cannot be used: {fault}")
            del os.environ[name]


def _proxy_fault(address: str) -> str:
    import httpx

    try:
        httpx.HTTPTransport(proxy=address if "://" in address else f"http://{address}").close()
    except (ImportError, ValueError, httpx.InvalidURL) as error:
        return str(error)
    return ""
