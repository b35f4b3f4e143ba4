"""One writer at a time for the aliases of a model, over all machines that share the registry.

MLflow moves an alias without compare-and-swap. Creating a registered model is the only step that
fails the second time, so a model named ``NAME.lock`` serves as the lock while it exists.
"""

from __future__ import annotations

import logging
import os
import socket
import threading
import time
import uuid
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING

from mirnet.errors import ServiceError
from mirnet.liveness import ProcessIdentity, Unchanged, has_ended, this_process
from mirnet.tracking.client import ignored

if TYPE_CHECKING:
    from mlflow import MlflowClient
    from mlflow.entities.model_registry import RegisteredModel

log = logging.getLogger(__name__)

SUFFIX = ".lock"
STALE_AFTER_S = 120.0
_POLL_S = 0.2
_MAX_GAP_S = 5.0
_BEAT = "beat."
_BEAT_S = 20.0
# ten minutes: a promotion that hangs does not keep the lock for ever
_MAX_BEATS = 30


@contextmanager
def alias_lock(
    client: MlflowClient,
    name: str,
    *,
    wait_s: float = 180.0,
    clock: Callable[[], float] = time.monotonic,
    sleep: Callable[[float], None] = time.sleep,
) -> Iterator[Callable[[], None]]:
    """Hold the lock of a model during a block.

    A lock is taken over if its process was one of this machine and is gone, or once this process
    has seen no change of it for two minutes by its own clock. Its time of creation does not count,
    since it is of another clock. The holder changes it every 20 s, for ten minutes at most.

    Yields:
        A check to call right before each move; it raises if the lock was taken over meanwhile.

    Raises:
        ServiceError: another process holds it for too long.
    """
    owner = uuid.uuid4().hex
    deadline = clock() + wait_s
    watched = Unchanged(max_gap_s=_MAX_GAP_S, clock=clock)
    dead: list[str] = []  # locks that we took over, by their new names

    def is_ours() -> bool:
        holder = _holder(client, name)
        return holder is not None and holder.tags.get("owner") == owner

    def check() -> None:
        if not is_ours():
            raise ServiceError(f"the lock on the aliases of {name} was lost; run it again")

    try:
        while not _acquire(client, name, owner):
            dead += _take_over_if_stale(client, name, watched)
            if clock() > deadline:
                raise ServiceError(
                    f"the aliases of {name} are locked by another promotion; try again"
                )
            sleep(_POLL_S)
        with _beating(client, name, owner):
            yield check
    finally:
        if is_ours():
            client.delete_registered_model(name + SUFFIX)
        for aside in dead:
            with ignored("RESOURCE_DOES_NOT_EXIST"):
                client.delete_registered_model(aside)


@contextmanager
def _beating(client: MlflowClient, name: str, owner: str) -> Iterator[None]:
    """The owner's tag of the lock changes during the block: it is alive."""
    from mlflow.exceptions import MlflowException

    ended = threading.Event()

    def beat() -> None:
        for number in range(_MAX_BEATS):
            if ended.wait(_BEAT_S):
                return
            try:
                client.set_registered_model_tag(name + SUFFIX, _BEAT + owner, str(number))
            except MlflowException as error:  # it was taken over, or MLflow is away
                log.warning("the lock of %s is not renewed: %s", name, error.error_code)

    thread = threading.Thread(target=beat, name="mirnet-alias-lock", daemon=True)
    thread.start()
    try:
        yield
    finally:
        ended.set()
        thread.join()


def _acquire(client: MlflowClient, name: str, owner: str) -> bool:
    tags = {
        "owner": owner,
        "host": socket.gethostname(),  # for people and for older versions
        "pid": str(os.getpid()),
        "process": str(this_process()),
    }
    with ignored("RESOURCE_ALREADY_EXISTS"):
        client.create_registered_model(
            name + SUFFIX, tags=tags, description="held while an alias moves"
        )
        return True
    return False


def _take_over_if_stale(client: MlflowClient, name: str, watched: Unchanged) -> list[str]:
    """Rename a stale lock; returns its new name, or nothing.

    The renamed one stays until the taker has released its own: until then the rename fails of all
    who saw the same dead lock. One who comes even later may rename that of a living promotion, and
    puts it back.
    """
    from mlflow.exceptions import MlflowException

    lock, holder = name + SUFFIX, _holder(client, name)
    if holder is None or not _is_stale(holder, watched):
        return []
    owner = holder.tags.get("owner", str(holder.creation_timestamp))
    aside = f"{lock}.{owner}"
    try:
        client.rename_registered_model(lock, aside)
        found = client.get_registered_model(aside)
        if _identity(found) != _identity(holder):
            client.rename_registered_model(aside, lock)
            return []
    except MlflowException as error:
        log.info("somebody else took the dead lock of %s: %s", name, error.error_code)
        return []
    log.warning("took over the lock of %s from a promotion that is gone", name)
    return [aside]


def _identity(lock: RegisteredModel) -> tuple[str | None, int | None]:
    return lock.tags.get("owner"), lock.creation_timestamp


def _is_stale(holder: RegisteredModel, watched: Unchanged) -> bool:
    owner = holder.tags.get("owner", "")
    shown = (owner, holder.tags.get(_BEAT + owner), holder.creation_timestamp)
    process = ProcessIdentity.parse(holder.tags.get("process", ""))
    return (process is not None and has_ended(process)) or watched.look(shown) > STALE_AFTER_S


def _holder(client: MlflowClient, name: str) -> RegisteredModel | None:
    with ignored("RESOURCE_DOES_NOT_EXIST"):
        return client.get_registered_model(name + SUFFIX)
    return None
