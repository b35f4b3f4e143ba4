from __future__ import annotations

import subprocess
import sys
import threading

import pytest
from mlflow import MlflowClient
from mlflow.exceptions import MlflowException

from mirnet import stages
from mirnet.config import Settings
from mirnet.errors import GateRefused, ServiceError, UsageError
from mirnet.params import Params
from mirnet.tracking import aliases, connect, logged_models, registry, trust
from mirnet.tracking.history import AliasChange
from mirnet.tracking.lock import SUFFIX, alias_lock

# promotes a version; dies by SIGKILL at the n-th write to the registry, if one is given
CHILD = """
import os, signal, sys
from pathlib import Path
from mirnet.config import Settings
from mirnet.tracking import aliases, registry
workspace, version, die_at = sys.argv[1], sys.argv[2], int(sys.argv[3])
writes = 0
def counted(function):
    def write(*args, **kwargs):
        global writes
        if writes == die_at:
            os.kill(os.getpid(), signal.SIGKILL)
        writes += 1
        return function(*args, **kwargs)
    return write
mover = aliases._Mover
mover.put, mover.write = counted(mover.put), counted(mover.write)
aliases.verify = lambda version, _: {"native/weights.safetensors": version.weights_digest}
settings = Settings(workspace=Path(workspace))
found = registry.get_version(f"models:/mirnet/{version}", settings)
print("ready", flush=True)
sys.stdin.readline()
aliases.promote(found, why="child", settings=settings)
"""
NEVER = 10**6


@pytest.fixture
def unproven(monkeypatch: pytest.MonkeyPatch) -> None:
    """The proof of packages takes seconds and has its own tests."""
    monkeypatch.setattr(
        aliases, "verify", lambda version, _: {trust.WEIGHTS: version.weights_digest}
    )


def current(settings: Settings) -> dict[str, str]:
    return {
        alias: version.version
        for version in registry.list_versions("mirnet", settings)
        for alias in version.aliases
    }


def promote(
    settings: Settings, number: str, expected_champion: str | None = aliases.ANY_CHAMPION
) -> AliasChange | None:
    version = registry.get_version(f"models:/mirnet/{number}", settings)
    return aliases.promote(
        version, why=f"test {number}", settings=settings, expected_champion=expected_champion
    )


def start(settings: Settings, version: str, *, die_at: int = NEVER) -> subprocess.Popen[str]:
    command = [sys.executable, "-c", CHILD, str(settings.workspace), version, str(die_at)]
    return subprocess.Popen(
        command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    )


def go(child: subprocess.Popen[str]) -> None:
    assert child.stdout is not None and child.stdin is not None
    assert child.stdout.readline() == "ready\n"
    child.stdin.write("go\n")
    child.stdin.flush()


def test_promotions_move_champion_and_previous_and_are_recorded(
    versions: Settings, unproven: None
) -> None:
    promote(versions, "1", expected_champion=None)
    assert current(versions) == {"champion": "1"}
    promote(versions, "2", expected_champion="1")
    assert current(versions) == {"champion": "2", "previous": "1"}
    assert promote(versions, "2") is None, "already champion: nothing moves"
    first, second = aliases.history("mirnet", versions)
    assert (first.version, first.from_version, first.why) == ("1", None, "test 1")
    assert (second.version, second.from_version, second.state) == ("2", "1", "done")
    assert second.who and second.time_s > first.time_s
    assert aliases.history("nobody", versions) == []


def test_a_decision_about_another_champion_is_void(versions: Settings, unproven: None) -> None:
    promote(versions, "1")
    promote(versions, "2")
    with pytest.raises(GateRefused, match=r"champion is now version 2.*compared with version 1"):
        promote(versions, "3", expected_champion="1")
    with pytest.raises(GateRefused, match="compared with none"):
        promote(versions, "3", expected_champion=None)
    assert current(versions) == {"champion": "2", "previous": "1"}


def test_rollback_exchanges_and_needs_a_previous(versions: Settings, unproven: None) -> None:
    promote(versions, "1")
    with pytest.raises(UsageError, match="no such version"):
        aliases.rollback("mirnet", why="too early", settings=versions)
    promote(versions, "2")
    change = aliases.rollback("mirnet", why="too green", settings=versions)
    assert (change.action, change.version, change.from_version) == ("rollback", "1", "2")
    assert current(versions) == {"champion": "1", "previous": "2"}


def test_a_rollback_is_made_once_though_its_description_fails(
    versions: Settings,
    unproven: None,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> None:
    """A rollback is an exchange: one that failed after the move would be repeated, and undone."""
    promote(versions, "1")
    promote(versions, "2")

    def refused(*_: object, **__: object) -> None:
        raise MlflowException("503: try again later")

    with monkeypatch.context() as patch:
        patch.setattr(MlflowClient, "update_registered_model", refused)
        change = aliases.rollback("mirnet", why="too green", settings=versions)
    assert change.state == "done"
    assert current(versions) == {"champion": "1", "previous": "2"}
    assert "moved, but its description shows no history" in caplog.text


def test_names_with_quotes_are_unknown_and_no_error(versions: Settings) -> None:
    assert aliases.history("a'b", versions) == []
    assert not aliases.is_served("a'b", "champion", versions)


def test_undo_restores_both_aliases_unless_another_came_later(
    versions: Settings, unproven: None
) -> None:
    first = promote(versions, "1")
    second = promote(versions, "2")
    third = promote(versions, "3")
    assert first and second and third
    aliases.undo(second, why="not in force any more", settings=versions)
    assert current(versions) == {"champion": "3", "previous": "2"}
    aliases.undo(third, why="flow failed", settings=versions)
    assert current(versions) == {"champion": "2", "previous": "1"}
    aliases.undo(second, why="flow failed", settings=versions)
    assert current(versions) == {"champion": "1"}
    aliases.undo(first, why="flow failed", settings=versions)
    assert current(versions) == {}


def test_the_challenger_leaves_its_alias_when_it_wins(versions: Settings, unproven: None) -> None:
    promote(versions, "1")
    version = registry.get_version("models:/mirnet/2", versions)
    aliases.challenge(version, why="waits for approval", settings=versions)
    assert current(versions) == {"champion": "1", "challenger": "2"}
    promote(versions, "2")
    assert current(versions) == {"champion": "2", "previous": "1"}
    actions = [change.action for change in aliases.history("mirnet", versions)]
    assert actions == ["promote", "challenge", "promote"]


def test_an_unproven_version_moves_no_alias(versions: Settings) -> None:
    connect(versions).set_model_version_tag("mirnet", "1", logged_models.DIGEST_TAG, "0" * 64)
    with pytest.raises(ValueError, match="not those that were registered"):
        promote(versions, "1")
    assert current(versions) == {} and aliases.history("mirnet", versions) == []


def test_the_lock_keeps_others_out_and_is_gone_after(versions: Settings) -> None:
    client = connect(versions)
    with alias_lock(client, "mirnet") as still_ours:
        still_ours()
        with (
            pytest.raises(ServiceError, match="locked by another promotion"),
            alias_lock(client, "mirnet", wait_s=0.5),
        ):
            pytest.fail("two hold the lock")
        client.delete_registered_model("mirnet" + SUFFIX)
        with pytest.raises(ServiceError, match="was lost"):
            still_ours()
    names = {model.name for model in client.search_registered_models()}
    assert names == {"mirnet"}


def test_a_lock_of_another_host_goes_stale_by_age(
    versions: Settings, monkeypatch: pytest.MonkeyPatch
) -> None:
    client = connect(versions)
    tags = {"owner": "x", "host": "elsewhere", "pid": "1"}
    client.create_registered_model("mirnet" + SUFFIX, tags=tags)
    with pytest.raises(ServiceError), alias_lock(client, "mirnet", wait_s=0.5):
        pytest.fail("a living lock was taken over")
    monkeypatch.setattr("mirnet.tracking.lock.STALE_AFTER_S", 0.0)
    with alias_lock(client, "mirnet", wait_s=5):
        pass


# writes of a promotion: 0 plan, 1 previous, 2 champion, 3 done
@pytest.mark.parametrize(
    ("die_at", "after_death", "state"),
    [
        (0, {"champion": "1"}, None),
        (1, {"champion": "1"}, "taken back"),
        (2, {"champion": "1", "previous": "1"}, "taken back"),
        (3, {"champion": "2", "previous": "1"}, "done"),
    ],
)
def test_a_promotion_killed_between_any_two_writes_is_put_right_by_the_next(
    versions: Settings,
    unproven: None,
    die_at: int,
    after_death: dict[str, str],
    state: str | None,
) -> None:
    promote(versions, "1")
    child = start(versions, "2", die_at=die_at)
    go(child)
    assert child.wait(timeout=200) == -9
    assert current(versions) == after_death, "champion is never missing"
    promote(versions, "3")
    expected_previous = "2" if state == "done" else "1"
    assert current(versions) == {"champion": "3", "previous": expected_previous}
    states = {c.version: c.state for c in aliases.history("mirnet", versions)}
    assert states.get("2") == state
    assert states["3"] == "done"
    assert not connect(versions).search_registered_models(f"name LIKE '%{SUFFIX}%'")


def test_two_processes_that_promote_at_once_end_in_one_state(
    versions: Settings, unproven: None
) -> None:
    promote(versions, "1")
    children = [start(versions, number) for number in ("2", "3")]
    client, seen, done = connect(versions), set(), threading.Event()

    def watch() -> None:
        while not done.is_set():
            seen.add(client.get_registered_model("mirnet").aliases.get("champion"))

    watcher = threading.Thread(target=watch)
    watcher.start()
    for child in children:
        go(child)
    errors = [child.communicate(timeout=300)[1] for child in children]
    done.set()
    watcher.join()
    assert [child.returncode for child in children] == [0, 0], errors
    assert None not in seen, "champion was missing for a moment"
    _, first, second = aliases.history("mirnet", versions)
    assert {first.version, second.version} == {"2", "3"}
    assert second.from_version == first.version and first.from_version == "1"
    assert current(versions) == {"champion": second.version, "previous": first.version}


def test_decisions_about_the_same_champion_only_one_wins(
    versions: Settings, unproven: None
) -> None:
    promote(versions, "1")
    winners: list[AliasChange | None] = []
    losers: list[str] = []

    def try_it(number: str) -> None:
        try:
            winners.append(promote(versions, number, expected_champion="1"))
        except GateRefused as error:
            losers.append(str(error))

    threads = [threading.Thread(target=try_it, args=(number,)) for number in ("2", "3")]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(winners) == len(losers) == 1
    winner = winners[0]
    assert winner is not None
    assert current(versions) == {"champion": winner.version, "previous": "1"}


def test_the_model_in_the_package_never_replaces_a_champion(
    versions: Settings, unproven: None
) -> None:
    """Also not one whose alias somebody deleted, where its history cannot be verified either."""
    run = stages.RunConfig(Params(), versions)
    assert stages.champion_or_base(run) == "base", "registered, but never promoted"
    promote(versions, "2")
    assert stages.champion_or_base(run) == "models:/mirnet@champion"
    connect(versions).delete_registered_model_alias("mirnet", "champion")
    elsewhere = versions.model_copy(update={"trusted_keys": versions.workspace / "none.pub"})
    for settings in (versions, elsewhere):
        run = stages.RunConfig(Params(), settings)
        assert stages.champion_or_base(run) == "models:/mirnet@champion"
    with pytest.raises(UsageError, match="no such version"):
        stages.pin(None, stages.RunConfig(Params(), versions))
