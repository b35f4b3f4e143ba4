"""Moves of ``champion``, ``challenger`` and ``previous``: locked, recorded, recoverable.

A move is recorded as planned before it is made and as done after it. A process that dies in between
leaves a planned entry, which the next move under the lock completes or reverts. ``champion`` is
overwritten in one step, so it is never missing.
"""

from __future__ import annotations

import getpass
import logging
import time
import uuid
from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Literal

from pydantic import BaseModel, ConfigDict

from mirnet.config import Settings
from mirnet.errors import GateRefused, UsageError
from mirnet.tracking.client import connect, service_errors
from mirnet.tracking.lock import alias_lock
from mirnet.tracking.registry import RegisteredVersion, get_version, verify

if TYPE_CHECKING:
    from mlflow import MlflowClient

log = logging.getLogger(__name__)

Action = Literal["promote", "rollback", "undo", "challenge", "withdraw"]

_HISTORY = "mirnet.history."
ANY_CHAMPION = "*"


class AliasChange(BaseModel):
    """One move of an alias: what, from what, who, when and why."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    change_id: str
    time_s: float
    action: Action
    name: str
    alias: str
    version: str | None
    from_version: str | None
    previous_before: str | None = None
    who: str
    why: str
    state: Literal["planned", "done", "taken back"]


def promote(
    version: RegisteredVersion,
    *,
    why: str,
    settings: Settings,
    expected_champion: str | None = ANY_CHAMPION,
) -> AliasChange | None:
    """Make a version the champion and the old one ``previous``; none: it is already champion.

    Args:
        expected_champion: The version of the champion in the gate's comparison, ``None`` for no
            champion. After another promotion the comparison is void, and this refuses.

    Raises:
        WeightsError: the version is not READY, does not load, or does not reproduce its output.
        GateRefused: the champion is not the expected one.
        ServiceError: MLflow cannot be reached, or another promotion holds the lock.
    """
    verify(version, settings)
    client = connect(settings)
    with service_errors(settings.mlflow_uri), alias_lock(client, version.name) as still_ours:
        _recover(client, version.name)
        champion = _aliases(client, version.name).get("champion")
        if champion == version.version:
            return None
        if expected_champion not in (ANY_CHAMPION, champion):
            raise GateRefused(
                f"{version.name}: champion is now {_shown(champion)}, the gate compared with "
                f"{_shown(expected_champion)}: evaluate and promote again"
            )
        targets = {"previous": champion} if champion else {}
        targets["champion"] = version.version
        return _move(client, version.name, targets, action="promote", why=why, check=still_ours)


def rollback(name: str, *, why: str, settings: Settings) -> AliasChange:
    """Exchange ``champion`` and ``previous``.

    Raises:
        UsageError: there is no ``previous``.
        WeightsError: the previous version cannot be loaded any more.
        ServiceError: MLflow cannot be reached, or another promotion holds the lock.
    """
    target = get_version(f"models:/{name}@previous", settings)
    verify(target, settings)
    client = connect(settings)
    with service_errors(settings.mlflow_uri), alias_lock(client, name) as still_ours:
        _recover(client, name)
        aliases = _aliases(client, name)
        if aliases.get("previous") != target.version or aliases.get("champion") == target.version:
            raise UsageError(
                f"{name}: previous is {_shown(aliases.get('previous'))}, champion is "
                f"{_shown(aliases.get('champion'))}: there is nothing to go back to"
            )
        targets = {"previous": aliases["champion"], "champion": target.version}
        return _move(client, name, targets, action="rollback", why=why, check=still_ours)


def undo(change: AliasChange, *, why: str, settings: Settings) -> None:
    """Restore both aliases to their state before a promotion, if it is still the latest."""
    client = connect(settings)
    with service_errors(settings.mlflow_uri), alias_lock(client, change.name) as still_ours:
        _recover(client, change.name)
        if _aliases(client, change.name).get("champion") != change.version:
            log.warning("%s: another promotion came later; nothing undone", change.name)
            return
        targets = {"previous": change.previous_before, "champion": change.from_version}
        _move(client, change.name, targets, action="undo", why=why, check=still_ours)


def challenge(version: RegisteredVersion, *, why: str, settings: Settings) -> AliasChange:
    """Make a version the ``challenger``: verified, and waiting for a decision.

    Raises:
        WeightsError: the version is not READY, does not load, or does not reproduce its output.
        ServiceError: MLflow cannot be reached, or another promotion holds the lock.
    """
    verify(version, settings)
    client = connect(settings)
    with service_errors(settings.mlflow_uri), alias_lock(client, version.name) as still_ours:
        _recover(client, version.name)
        targets = {"challenger": version.version}
        return _move(client, version.name, targets, action="challenge", why=why, check=still_ours)


def withdraw(name: str, version: str, *, why: str, settings: Settings) -> AliasChange | None:
    """Remove ``challenger`` from a version; none: it no longer has the alias.

    Raises:
        ServiceError: MLflow cannot be reached, or another promotion holds the lock.
    """
    client = connect(settings)
    with service_errors(settings.mlflow_uri), alias_lock(client, name) as still_ours:
        _recover(client, name)
        if _aliases(client, name).get("challenger") != version:
            return None
        targets = {"challenger": None}
        return _move(client, name, targets, action="withdraw", why=why, check=still_ours)


def history(name: str, settings: Settings) -> list[AliasChange]:
    """All moves of the model's aliases, oldest first; empty if the name is unknown."""
    client = connect(settings)
    with service_errors(settings.mlflow_uri):
        if not client.search_registered_models(f"name = '{name}'"):
            return []
        return _history(client, name)


def _move(
    client: MlflowClient,
    name: str,
    targets: Mapping[str, str | None],
    *,
    action: Action,
    why: str,
    check: Callable[[], None],
) -> AliasChange:
    """Record, move, mark as done. The last alias is the one of the change.

    Args:
        targets: version by alias, in the order of the moves; ``None`` removes the alias.
    """
    alias, version = list(targets.items())[-1]
    entry = _entry(client, name, action=action, alias=alias, version=version, why=why)
    _write(client, entry)
    check()
    for each, target in targets.items():
        _put(client, name, each, target)
    return _finish(client, entry)


def _finish(client: MlflowClient, entry: AliasChange) -> AliasChange:
    """After the move: a promoted challenger loses the alias ``challenger``."""
    aliases = _aliases(client, entry.name)
    if "challenger" in aliases and aliases["challenger"] == aliases.get("champion"):
        _put(client, entry.name, "challenger", None)
    return _write(client, entry.model_copy(update={"state": "done"}))


def _recover(client: MlflowClient, name: str) -> None:
    """Complete or revert the planned move of a dead process. Call under the lock only."""
    for entry in _history(client, name):
        if entry.state != "planned":
            continue
        if _aliases(client, name).get(entry.alias) == entry.version:
            state = _finish(client, entry).state
        else:
            if entry.alias == "champion":
                _put(client, name, "previous", entry.previous_before)
            state = _write(client, entry.model_copy(update={"state": "taken back"})).state
        log.warning(
            "%s: a %s to version %s was cut off: %s", name, entry.action, entry.version, state
        )


def _entry(
    client: MlflowClient,
    name: str,
    *,
    action: Action,
    alias: str,
    version: str | None,
    why: str,
) -> AliasChange:
    aliases, now = _aliases(client, name), time.time()
    return AliasChange(
        change_id=f"{int(now * 1000):014d}-{uuid.uuid4().hex[:8]}",
        time_s=now,
        action=action,
        name=name,
        alias=alias,
        version=version,
        from_version=aliases.get(alias),
        previous_before=aliases.get("previous"),
        who=getpass.getuser(),
        why=why[:2000],
        state="planned",
    )


def _write(client: MlflowClient, entry: AliasChange) -> AliasChange:
    client.set_registered_model_tag(entry.name, _HISTORY + entry.change_id, entry.model_dump_json())
    return entry


def _history(client: MlflowClient, name: str) -> list[AliasChange]:
    tags = client.get_registered_model(name).tags
    return [
        AliasChange.model_validate_json(tags[key])
        for key in sorted(tags)
        if key.startswith(_HISTORY)
    ]


def _aliases(client: MlflowClient, name: str) -> dict[str, str]:
    return {k: str(v) for k, v in client.get_registered_model(name).aliases.items()}


def _put(client: MlflowClient, name: str, alias: str, version: str | None) -> None:
    if version is not None:
        client.set_registered_model_alias(name, alias, version)
    elif alias in _aliases(client, name):
        client.delete_registered_model_alias(name, alias)


def _shown(version: str | None) -> str:
    return f"version {version}" if version else "none"
