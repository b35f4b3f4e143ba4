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
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
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
    with _locked(version.name, settings) as locked:
        champion = locked.aliases().get("champion")
        if champion == version.version:
            return None
        if expected_champion not in (ANY_CHAMPION, champion):
            raise GateRefused(
                f"{version.name}: champion is now {_shown(champion)}, the gate compared with "
                f"{_shown(expected_champion)}: evaluate and promote again"
            )
        targets = {"previous": champion} if champion else {}
        targets["champion"] = version.version
        return locked.move(targets, action="promote", why=why)


def rollback(name: str, *, why: str, settings: Settings) -> AliasChange:
    """Exchange ``champion`` and ``previous``.

    Raises:
        UsageError: there is no ``previous``.
        WeightsError: the previous version cannot be loaded any more.
        ServiceError: MLflow cannot be reached, or another promotion holds the lock.
    """
    target = get_version(f"models:/{name}@previous", settings)
    verify(target, settings)
    with _locked(name, settings) as locked:
        aliases = locked.aliases()
        if aliases.get("previous") != target.version or aliases.get("champion") == target.version:
            raise UsageError(
                f"{name}: previous is {_shown(aliases.get('previous'))}, champion is "
                f"{_shown(aliases.get('champion'))}: there is nothing to go back to"
            )
        targets = {"previous": aliases["champion"], "champion": target.version}
        return locked.move(targets, action="rollback", why=why)


def undo(change: AliasChange, *, why: str, settings: Settings) -> None:
    """Restore both aliases to their state before a promotion, if it is still the latest."""
    with _locked(change.name, settings) as locked:
        if locked.aliases().get("champion") != change.version:
            log.warning("%s: another promotion came later; nothing undone", change.name)
            return
        targets = {"previous": change.previous_before, "champion": change.from_version}
        locked.move(targets, action="undo", why=why)


def challenge(version: RegisteredVersion, *, why: str, settings: Settings) -> AliasChange:
    """Make a version the ``challenger``: verified, and waiting for a decision.

    Raises:
        WeightsError: the version is not READY, does not load, or does not reproduce its output.
        ServiceError: MLflow cannot be reached, or another promotion holds the lock.
    """
    verify(version, settings)
    with _locked(version.name, settings) as locked:
        return locked.move({"challenger": version.version}, action="challenge", why=why)


def withdraw(name: str, version: str, *, why: str, settings: Settings) -> AliasChange | None:
    """Remove ``challenger`` from a version; none: it no longer has the alias.

    Raises:
        ServiceError: MLflow cannot be reached, or another promotion holds the lock.
    """
    with _locked(name, settings) as locked:
        if locked.aliases().get("challenger") != version:
            return None
        return locked.move({"challenger": None}, action="withdraw", why=why)


def history(name: str, settings: Settings) -> list[AliasChange]:
    """All moves of the model's aliases, oldest first; empty if the name is unknown."""
    client = connect(settings)
    with service_errors(settings.mlflow_uri):
        if not client.search_registered_models(f"name = '{name}'"):
            return []
        return _history(client, name)


@contextmanager
def _locked(name: str, settings: Settings) -> Iterator[_LockedModel]:
    """Hold the lock of a model's aliases; what a dead process left unfinished is settled first."""
    client = connect(settings)
    with service_errors(settings.mlflow_uri), alias_lock(client, name) as check:
        _recover(client, name)
        yield _LockedModel(client, name, check)


@dataclass(frozen=True)
class _LockedModel:
    """A model whose aliases no other process moves; ``check`` raises if the lock was lost."""

    client: MlflowClient
    name: str
    check: Callable[[], None]

    def aliases(self) -> dict[str, str]:
        """Version by alias."""
        return _aliases(self.client, self.name)

    def move(self, targets: Mapping[str, str | None], *, action: Action, why: str) -> AliasChange:
        """Record, move, mark as done. The last alias is the one of the change.

        Args:
            targets: version by alias, in the order of the moves; ``None`` removes the alias.
        """
        alias, version = list(targets.items())[-1]
        before, now = self.aliases(), time.time()
        entry = AliasChange(
            change_id=f"{int(now * 1000):014d}-{uuid.uuid4().hex[:8]}",
            time_s=now,
            action=action,
            name=self.name,
            alias=alias,
            version=version,
            from_version=before.get(alias),
            previous_before=before.get("previous"),
            who=getpass.getuser(),
            why=why[:2000],
            state="planned",
        )
        _write(self.client, entry)
        self.check()
        for each, target in targets.items():
            _put(self.client, self.name, each, target)
        return _finish(self.client, entry)


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
