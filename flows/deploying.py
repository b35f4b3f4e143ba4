"""A build step of ``prefect deploy`` (prefect.yaml): what the deployments need on a server."""

from __future__ import annotations

from prefect.client.orchestration import SyncPrefectClient, get_client
from prefect.client.schemas.actions import GlobalConcurrencyLimitCreate
from prefect.client.schemas.filters import DeploymentFilter, DeploymentFilterName
from prefect.exceptions import ObjectNotFound

from flows.turns import COMPUTE

_OLD_NAMES = ["process", "kubernetes"]
_FLOWS = ("retrain", "enhance", "monitor")


def prepare(*, computing: int = 1) -> dict[str, str]:
    """Make the shared limit, unless it is there, and stop the schedules of earlier names.

    Args:
        computing: how many runs train or enhance at a time. A limit that exists is kept:
            ``prefect gcl update mirnet-compute --limit 2`` changes it.
    """
    with get_client(sync_client=True) as client:
        return {"limit": _make_limit(client, computing), "paused": ", ".join(_pause_old(client))}


def _make_limit(client: SyncPrefectClient, computing: int) -> str:
    try:
        found = client.read_global_concurrency_limit_by_name(COMPUTE).limit
    except ObjectNotFound:
        client.create_global_concurrency_limit(
            GlobalConcurrencyLimitCreate(name=COMPUTE, limit=computing)
        )
        found = computing
    return f"{COMPUTE} {found}"


def _pause_old(client: SyncPrefectClient) -> list[str]:
    """Their schedules would start each run twice. They can still be started by name."""
    paused = []
    named = DeploymentFilter(name=DeploymentFilterName(any_=_OLD_NAMES))
    for old in client.read_deployments(deployment_filter=named):
        flow = (old.entrypoint or "").rpartition(":")[2]
        if flow in _FLOWS and not old.paused:
            client.pause_deployment(old.id)
            paused.append(f"{flow}/{old.name}")
    return paused
