"""Prefect's settings for runs started by hand, set before Prefect is imported.

A run from the command line shows its own progress and reports errors in a sentence, so Prefect
keeps quiet; its database stays in the project's data folder, away from the user's profile. Whatever
the user has set wins. Its temporary server may take a while to start where many share a machine,
or where several runs start with a new database at once.
"""

from __future__ import annotations

import os

from storage.inputs import home

_CPU_SHARDS = 2
"""More at once gain little time, and a CT volume of each is in memory."""


def quiet_prefect() -> None:
    """Set what the user has not set."""
    defaults = {
        "PREFECT_HOME": str(home() / "prefect"),
        "PREFECT_SERVER_ANALYTICS_ENABLED": "false",
        "DO_NOT_TRACK": "1",
        "PREFECT_LOGGING_LEVEL": "CRITICAL",
        "PREFECT_SERVER_LOGGING_LEVEL": "CRITICAL",
        "PREFECT_SERVER_UI_ENABLED": "false",
        "PREFECT_SERVER_EPHEMERAL_STARTUP_TIMEOUT_SECONDS": "300",
    }
    for name, value in defaults.items():
        os.environ.setdefault(name, value)


def cpu_shards() -> int:
    """Shards that this machine's CPU takes at once.

    As many as the threads of the task runner, where the user has set Prefect's
    `PREFECT_TASKS_RUNNER_THREAD_POOL_MAX_WORKERS`.
    """
    from prefect.settings import get_current_settings

    return get_current_settings().tasks.runner.thread_pool_max_workers or _CPU_SHARDS
