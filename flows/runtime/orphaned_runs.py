"""Flow runs whose process is gone: Prefect would show them as running for ever."""

from __future__ import annotations

from collections.abc import Mapping
from uuid import UUID

from prefect.client.orchestration import SyncPrefectClient, get_client
from prefect.client.schemas.filters import (
    FlowFilter,
    FlowFilterName,
    FlowRunFilter,
    FlowRunFilterState,
    FlowRunFilterStateType,
)
from prefect.client.schemas.objects import StateType
from prefect.client.schemas.sorting import FlowRunSort
from prefect.states import Crashed

from storage.locks import Process

_HOST, _PROCESS, _STARTED = "vividmed.host", "vividmed.process", "vividmed.process_started"
"""Labels of a flow run: the machine, the process's id, and its start in seconds since 1970."""

_NEWEST_RUNS = 200
"""Runs that are looked through at a time: as many as a server gives."""


def claim_run(flow_run_id: UUID, flow: str) -> None:
    """Label a run with this process, and close the flow's runs whose process is gone.

    Only runs of this machine are closed: of others nothing is known.
    """
    with get_client(sync_client=True) as client:
        client.update_flow_run_labels(flow_run_id, _labels(Process.this()))
        _close_orphans(client, flow)


def _labels(process: Process) -> dict[str, bool | int | float | str]:
    return {
        _HOST: process.host,
        _PROCESS: process.pid,
        _STARTED: process.started,
    }


def _close_orphans(client: SyncPrefectClient, flow: str) -> None:
    open_states = [StateType.RUNNING, StateType.PENDING, StateType.CANCELLING]
    runs = client.read_flow_runs(
        flow_filter=FlowFilter(name=FlowFilterName(any_=[flow])),
        flow_run_filter=FlowRunFilter(
            state=FlowRunFilterState(type=FlowRunFilterStateType(any_=open_states))
        ),
        sort=FlowRunSort.START_TIME_DESC,
        limit=_NEWEST_RUNS,
    )
    for run in runs:
        if _is_orphaned(run.labels):
            message = "its process was killed; the next run of this store goes on from there"
            client.set_flow_run_state(run.id, Crashed(message=message), force=True)


def _is_orphaned(labels: Mapping[str, object]) -> bool:
    if _HOST not in labels:
        return False
    host, pid, started = (str(labels[name]) for name in (_HOST, _PROCESS, _STARTED))
    return Process(host, int(pid), float(started)).is_gone
