"""Whose lock on the aliases of a model is taken over, and when: no wall clock decides."""

from __future__ import annotations

import socket
import time
from contextlib import ExitStack
from dataclasses import replace

import pytest
from mlflow import MlflowClient
from mlflow.entities.model_registry import RegisteredModel

from mirnet.config import Settings
from mirnet.errors import ServiceError
from mirnet.liveness import this_process
from mirnet.tracking import connect
from mirnet.tracking.lock import STALE_AFTER_S, SUFFIX, alias_lock

DEAD_PID = 999_999_999
HELD = {"owner": "x", "host": socket.gethostname(), "pid": str(DEAD_PID)}


@pytest.mark.parametrize("ahead_s", [-150.0, 150.0, 86_400.0])
def test_the_time_of_a_lock_says_nothing(
    ahead_s: float, store: Settings, monkeypatch: pytest.MonkeyPatch
) -> None:
    client = connect(store)
    client.create_registered_model("mirnet" + SUFFIX, tags=HELD)
    real = time.time
    monkeypatch.setattr(time, "time", lambda: real() + ahead_s)
    with (
        pytest.raises(ServiceError, match="locked by another"),
        alias_lock(client, "mirnet", wait_s=0.5),
    ):
        pytest.fail("taken from somebody who may be alive")


def test_a_lock_of_another_container_with_our_host_name_is_not_ours(store: Settings) -> None:
    client = connect(store)
    theirs = replace(this_process(), machine="boot pid:[1]", pid=DEAD_PID)
    client.create_registered_model("mirnet" + SUFFIX, tags=HELD | {"process": str(theirs)})
    with pytest.raises(ServiceError), alias_lock(client, "mirnet", wait_s=0.5):
        pytest.fail("taken from somebody who may be alive")


def test_a_lock_whose_process_ended_here_is_taken_at_once(store: Settings) -> None:
    client = connect(store)
    dead = replace(this_process(), pid=DEAD_PID)
    client.create_registered_model("mirnet" + SUFFIX, tags=HELD | {"process": str(dead)})
    with alias_lock(client, "mirnet", wait_s=0.5) as still_ours:
        still_ours()


def dead_lock(store: Settings) -> MlflowClient:
    client = connect(store)
    dead = replace(this_process(), pid=DEAD_PID)
    client.create_registered_model("mirnet" + SUFFIX, tags=HELD | {"process": str(dead)})
    return client


def locks(client: MlflowClient) -> list[str]:
    return [model.name for model in client.search_registered_models()]


def refused_to(client: MlflowClient) -> None:
    with (
        pytest.raises(ServiceError, match="locked by another"),
        alias_lock(client, "mirnet", wait_s=0.5),
    ):
        pytest.fail("taken from a living promotion")


def test_of_two_who_saw_the_same_dead_lock_one_takes_it(
    store: Settings, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The second is about to rename it when the first already has its own."""
    client, second = dead_lock(store), connect(store)
    rename, taken = MlflowClient.rename_registered_model, []

    def too_late(self: MlflowClient, name: str, new_name: str) -> RegisteredModel:
        if self is second and not taken:
            taken.append(stack.enter_context(alias_lock(client, "mirnet", wait_s=0.5)))
        return rename(self, name, new_name)

    monkeypatch.setattr(MlflowClient, "rename_registered_model", too_late)
    with ExitStack() as stack:
        refused_to(second)
        (still_ours,) = taken
        still_ours()
    assert locks(client) == []


def test_who_renamed_the_lock_of_a_living_promotion_puts_it_back(
    store: Settings, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The first has released its own by then, and a third has taken it."""
    client, second = dead_lock(store), connect(store)
    rename, taken = MlflowClient.rename_registered_model, []

    def much_too_late(self: MlflowClient, name: str, new_name: str) -> RegisteredModel:
        if self is second and not taken:
            with alias_lock(client, "mirnet", wait_s=0.5):
                pass
            taken.append(stack.enter_context(alias_lock(client, "mirnet", wait_s=0.5)))
        return rename(self, name, new_name)

    monkeypatch.setattr(MlflowClient, "rename_registered_model", much_too_late)
    with ExitStack() as stack:
        refused_to(second)
        (still_ours,) = taken
        still_ours()
        assert locks(client) == ["mirnet" + SUFFIX]


def test_a_lock_that_does_not_change_is_taken_after_two_minutes(store: Settings) -> None:
    client = connect(store)
    client.create_registered_model("mirnet" + SUFFIX, tags=HELD)
    now = 0.0

    def sleep(_: float) -> None:
        nonlocal now
        now += 4

    with alias_lock(client, "mirnet", clock=lambda: now, sleep=sleep):
        assert STALE_AFTER_S < now < STALE_AFTER_S + 12


def test_a_lock_that_passes_from_hand_to_hand_is_not_stale(store: Settings) -> None:
    client = connect(store)
    client.create_registered_model("mirnet" + SUFFIX, tags=HELD)
    now = 0.0

    def sleep(_: float) -> None:
        nonlocal now
        now += 4
        client.set_registered_model_tag("mirnet" + SUFFIX, "owner", str(now // 60))

    with pytest.raises(ServiceError), alias_lock(client, "mirnet", clock=lambda: now, sleep=sleep):
        pytest.fail("taken from somebody who may be alive")


def test_a_slow_holder_shows_that_it_is_alive(
    store: Settings, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("mirnet.tracking.lock._BEAT_S", 0.02)
    monkeypatch.setattr("mirnet.tracking.lock._MAX_BEATS", 1000)
    monkeypatch.setattr("mirnet.tracking.lock._MAX_GAP_S", 60.0)
    client, now = connect(store), 0.0

    def beat() -> list[str]:
        tags = client.get_registered_model("mirnet" + SUFFIX).tags
        return [value for key, value in tags.items() if key.startswith("beat.")]

    def sleep(_: float) -> None:
        nonlocal now
        now += 60
        last = beat()
        while beat() == last:
            time.sleep(0.01)

    with alias_lock(client, "mirnet") as still_ours:
        with (
            pytest.raises(ServiceError, match="locked by another"),
            alias_lock(client, "mirnet", wait_s=300, clock=lambda: now, sleep=sleep),
        ):
            pytest.fail("taken from a living promotion")
        still_ours()
