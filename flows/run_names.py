"""Names of flow runs that say what they did: the date, and the data version of a training."""

from __future__ import annotations

from uuid import UUID

from prefect.client.orchestration import get_client
from prefect.runtime import flow_run

from mirnet.results import DataVersion


def by_date() -> str:
    """``enhance 2026-11-30 01:30``: the flow and its scheduled start in UTC."""
    return f"{flow_run.get_flow_name()} {flow_run.get_scheduled_start_time():%Y-%m-%d %H:%M}"


def add_data_version(version: DataVersion) -> str:
    """Rename the present run, as in ``retrain 2026-11-30 03:00 data 5f1c2ab9``; its name."""
    name = f"{by_date()} data {version.digest[:8]}"
    with get_client(sync_client=True) as client:
        client.update_flow_run(UUID(str(flow_run.get_id())), name=name)
    return name
