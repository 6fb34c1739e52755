"""Prefect's settings for runs started by hand, set before Prefect is imported.

A run from the command line shows its own progress and reports errors in a sentence, so Prefect
keeps quiet; its database stays in the project's data folder, away from the user's profile. Whatever
the user has set wins. Its temporary server may take a while to start where many share a machine,
or where several runs start with a new database at once. Two shards at a time: more CT volumes at
once cost memory, not time.
"""

from __future__ import annotations

import os

from storage.inputs import home


def quiet_prefect() -> None:
    """Set what the user has not set."""
    defaults = {
        "PREFECT_HOME": str(home() / "prefect"),
        "PREFECT_SERVER_ANALYTICS_ENABLED": "false",
        "DO_NOT_TRACK": "1",
        "PREFECT_LOGGING_LEVEL": "CRITICAL",
        "PREFECT_SERVER_LOGGING_LEVEL": "CRITICAL",
        "PREFECT_TASK_RUNNER_THREAD_POOL_MAX_WORKERS": "2",
        "PREFECT_SERVER_UI_ENABLED": "false",
        "PREFECT_SERVER_EPHEMERAL_STARTUP_TIMEOUT_SECONDS": "300",
    }
    for name, value in defaults.items():
        os.environ.setdefault(name, value)
