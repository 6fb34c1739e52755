"""The event that tells a Prefect server of a published taxonomy; `prefect.yaml` waits for it."""

from __future__ import annotations

PUBLISHED = "vividmed.taxonomy.published"
RESOURCE = "vividmed.taxonomy"


def tell_published(store: str, digest: str) -> str | None:
    """Tell the Prefect server that is set, if one is.

    Args:
        store: where the taxonomy was published, as workers reach it.
        digest: the taxonomy's.

    Returns:
        the server's address; None where no server is set.

    Raises:
        PrefectServerError: if the server that is set does not answer.
    """
    from prefect.events import emit_event
    from prefect.events.worker import EventsWorker
    from prefect.settings import get_current_settings

    from flows.runtime.prefect_server import PrefectServer, PrefectServerError

    if not (address := get_current_settings().api.url):
        return None
    if fault := PrefectServer(address).fault():
        raise PrefectServerError(
            f"the taxonomy is published, but no Prefect server answers at PREFECT_API_URL = "
            f"{address} ({fault}): start it, or run `vividmed reannotate --store {store}`"
        )
    emit_event(
        PUBLISHED,
        resource={"prefect.resource.id": f"{RESOURCE}.{digest[:12]}"},
        payload={"store": store, "digest": digest},
    )
    EventsWorker.drain_all(timeout=_DRAIN_S)
    return address


_DRAIN_S = 10
"""Seconds that an event may take to reach the server before the command ends."""
