"""One shared limit of compute: runs that train or enhance take turns."""

from __future__ import annotations

import logging
from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager

import httpx
from prefect.client.orchestration import get_client
from prefect.client.schemas.responses import GlobalConcurrencyLimitResponse
from prefect.concurrency._asyncio import ConcurrencySlotAcquisitionError
from prefect.concurrency.sync import concurrency
from prefect.exceptions import ObjectNotFound, PrefectException
from prefect.settings import get_current_settings

from flows.time_limits import OutOfTime
from mirnet.config import load_settings
from mirnet.errors import ServiceError

COMPUTE = "mirnet-compute"
"""Prefect's global concurrency limit of runs that train or enhance (flows/deploying.py)."""

logger = logging.getLogger("mirnet.flows")


@contextmanager
def turn(what: str) -> Iterator[None]:
    """Wait until fewer runs compute than :data:`COMPUTE` allows, and count as one in the block.

    Without a server, or on one without that limit, there is nothing to wait for. A run that is
    killed, or that cannot reach the server at its end, keeps its place for five minutes.

    Raises:
        OutOfTime: there was no place within MIRNET_TURN_LIMIT_S.
        ServiceError: Prefect gives no places, as with a limit of zero.
    """
    limit = _find_limit() if get_current_settings().api.url else None
    if limit is None:
        yield
        return
    if limit.active_slots >= limit.limit:
        taken = f"{limit.active_slots} of {limit.limit} places of {COMPUTE} are taken"
        logger.info("%s waits: %s (`prefect gcl inspect %s`)", what, taken, COMPUTE)
    place = _take_place(what)
    try:
        yield
    finally:
        _give_back(place)


def _find_limit() -> GlobalConcurrencyLimitResponse | None:
    with get_client(sync_client=True) as client:
        try:
            return client.read_global_concurrency_limit_by_name(COMPUTE)
        except ObjectNotFound:
            return None


def _take_place(what: str) -> AbstractContextManager[None]:
    wait_s = load_settings().turn_limit_s
    place = concurrency(COMPUTE, timeout_seconds=wait_s, raise_on_lease_renewal_failure=False)
    try:
        place.__enter__()
    except TimeoutError as error:
        raise OutOfTime(
            f"{what} waited {wait_s:g} s for a place under the limit {COMPUTE}; "
            "the limit is MIRNET_TURN_LIMIT_S"
        ) from error
    except ConcurrencySlotAcquisitionError as error:
        raise ServiceError(f"{what}: no place under the limit {COMPUTE}: {error}") from error
    return place


def _give_back(place: AbstractContextManager[None]) -> None:
    try:
        place.__exit__(None, None, None)
    except (httpx.HTTPError, PrefectException) as error:
        # the work is done, and the place is free again after five minutes
        logger.warning("the place under the limit %s was not given back: %s", COMPUTE, error)
