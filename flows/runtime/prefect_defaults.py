"""Prefect's settings for runs started by hand, set before Prefect is imported.

A run from the command line shows its own progress and reports errors in a sentence, so Prefect
keeps quiet; its database stays in the project's data folder, away from the user's profile. Whatever
the user has set wins.
"""

from __future__ import annotations

import os

from storage.inputs import home

_CPU_SHARDS = 2
"""More at once gain little time, and a CT volume of each is in memory."""

_LOOPBACK = ("127.0.0.1", "localhost", "::1")


def quiet_prefect() -> None:
    """Set what the user has not set."""
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
        os.environ[name] = ",".join(dict.fromkeys([*kept, *_LOOPBACK]))
