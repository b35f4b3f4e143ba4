"""Moves of ``champion``, ``challenger`` and ``previous``: locked, recorded, signed, recoverable.

A move is recorded as planned before it is made and as done after it. A process that dies in between
leaves a planned entry, which the next move under the lock completes or reverts. ``champion`` is
overwritten in one step, so it is never missing. Where a move starts from is what the history says,
not where something else has put an alias.
"""

from __future__ import annotations

import getpass
import logging
import time
import uuid
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING

from mirnet.config import Settings
from mirnet.errors import GateRefused, ServiceError, UntrustedModel, UsageError
from mirnet.signing.files import differences
from mirnet.signing.keys import SigningKey
from mirnet.signing.statement import GateDecision
from mirnet.tracking.client import connect, has_store, nothing_yet, service_errors
from mirnet.tracking.history import (
    Action,
    AliasChange,
    Record,
    Standing,
    Targets,
    read_records,
    readable,
    standing,
    write_change,
)
from mirnet.tracking.lock import alias_lock
from mirnet.tracking.notes import with_section
from mirnet.tracking.registry import RegisteredVersion, get_version, verify
from mirnet.tracking.trust import (
    Trust,
    gate_decision,
    signing_key,
    statement_of,
    write_statement,
)
from mirnet.tracking.versions import quoted

if TYPE_CHECKING:
    from mlflow import MlflowClient

log = logging.getLogger(__name__)

ANY_CHAMPION = "*"
_HISTORY = "History of the aliases"


@dataclass(frozen=True)
class _Mover:
    """The aliases of one model, for the holder of their lock."""

    client: MlflowClient
    uri: str
    name: str
    trust: Trust
    key: SigningKey | None
    still_ours: Callable[[], None]

    def records(self) -> list[Record]:
        return read_records(self.client, self.name, self.trust)

    def standing(self) -> Standing:
        return standing(self.records())

    def write(self, change: AliasChange) -> AliasChange:
        return write_change(self.client, change, self.key)

    def aliases(self) -> dict[str, str]:
        found = self.client.get_registered_model(self.name).aliases
        return {alias: str(version) for alias, version in found.items()}

    def put(self, alias: str, version: str | None) -> None:
        if version is not None:
            self.client.set_registered_model_alias(self.name, alias, version)
        elif alias in self.aliases():
            self.client.delete_registered_model_alias(self.name, alias)

    def move(self, targets: Targets, *, action: Action, why: str) -> AliasChange:
        """Record, move, mark as done. The last alias is the one of the change.

        Args:
            targets: version by alias, in the order of the moves; ``None`` removes the alias.
        """
        change = self._planned(targets, action=action, why=why)
        self.write(change)
        self.still_ours()
        for alias, version in targets.items():
            self.put(alias, version)
        return self.finish(change)

    def finish(self, change: AliasChange) -> AliasChange:
        """After the move: a promoted challenger loses the alias ``challenger``."""
        aliases = self.aliases()
        if "challenger" in aliases and aliases["challenger"] == aliases.get("champion"):
            self.put("challenger", None)
        done = self.write(change.model_copy(update={"state": "done"}))
        try:
            with service_errors(self.uri):
                self.describe()
        except ServiceError as error:
            # the move is made: a command that failed now would be repeated, and undo a rollback
            log.warning("%s: moved, but its description shows no history: %s", self.name, error)
        return done

    def describe(self) -> None:
        """The history for people: its machine form is in tags, as JSON."""
        model = self.client.get_registered_model(self.name)
        text = with_section(model.description or "", _HISTORY, readable(self.records()))
        self.client.update_registered_model(self.name, text)

    def recover(self) -> Standing:
        """Complete or revert the planned move of a dead process."""
        records = self.records()
        for record in records:
            if record.change.state == "planned" and record.trusted:
                self._recover(record.change)
            elif record.change.state == "planned":
                log.warning("%s: a planned move is not signed: left out", self.name)
        return self.standing()

    def _recover(self, change: AliasChange) -> None:
        if self.aliases().get(change.alias) == change.version:
            state = self.finish(change).state
        else:
            if change.alias == "champion":
                self.put("previous", change.previous_before)
            state = self.write(change.model_copy(update={"state": "taken back"})).state
        log.warning(
            "%s: a %s to version %s was cut off: %s",
            self.name, change.action, change.version, state,
        )  # fmt: skip

    def _planned(self, targets: Targets, *, action: Action, why: str) -> AliasChange:
        alias, version = list(targets.items())[-1]
        records = self.records()
        before = standing(records).settled
        # a clock that was set back must not put the entry before others
        latest = max((r.change.time_s for r in records if r.trusted), default=0.0)
        now = max(time.time(), latest + 0.001)
        return AliasChange(
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
            targets=dict(targets),
        )


@contextmanager
def _moving(name: str, settings: Settings) -> Iterator[tuple[_Mover, Standing]]:
    """Hold the lock of a model, after the recovery of a move that was cut off.

    Raises:
        UsageError: nothing is registered, or there is no key to sign with, and unsigned moves are
            not allowed.
        ServiceError: MLflow cannot be reached, or another promotion holds the lock.
    """
    if not has_store(settings):
        raise UsageError(f"{name} has no versions{nothing_yet(settings)}")
    trust, key, client = Trust.of(settings), signing_key(settings), connect(settings)
    with service_errors(settings.mlflow_uri), alias_lock(client, name) as still_ours:
        mover = _Mover(client, settings.mlflow_uri, name, trust, key, still_ours)
        yield mover, mover.recover()


def promote(
    version: RegisteredVersion,
    *,
    why: str,
    settings: Settings,
    expected_champion: str | None = ANY_CHAMPION,
    gate: GateDecision | None = None,
) -> AliasChange | None:
    """Prove and sign a version, make it the champion and the old one ``previous``.

    Args:
        expected_champion: The version of the champion in the gate's comparison, ``None`` for no
            champion. After another promotion the comparison is void, and this refuses.
        gate: the decision to sign; none: it is the caller's, with ``why`` as reason.

    Returns:
        None if it is champion already, by a signed history.

    Raises:
        UsageError: there is no key to sign with, and unsigned moves are not allowed.
        WeightsError: the version is not READY, does not load, or does not reproduce its output.
        GateRefused: the champion is not the expected one.
        ServiceError: MLflow cannot be reached, or another promotion holds the lock.
    """
    signing_key(settings)  # before the proof, which takes seconds
    files = verify(version, settings)
    with _moving(version.name, settings) as (mover, held):
        champion = held.settled.get("champion")
        there = mover.aliases().get("champion") == version.version
        if there and held.allows("champion", version.version) and _signed(version, mover.trust):
            return None
        if expected_champion not in (ANY_CHAMPION, champion):
            raise GateRefused(
                f"{version.name}: champion is now {_shown(champion)}, the gate compared with "
                f"{_shown(expected_champion)}: evaluate and promote again"
            )
        decision = gate or gate_decision("by hand", why[:2000])
        write_statement(mover.client, version, files, decision, settings)
        previous = champion if champion != version.version else held.settled.get("previous")
        targets = {"previous": previous} if previous else {}
        targets["champion"] = version.version
        return mover.move(targets, action="promote", why=why)


def rollback(name: str, *, why: str, settings: Settings) -> AliasChange:
    """Exchange ``champion`` and ``previous`` of the history.

    If something else has moved ``champion``, the champion of the history is put back.

    Raises:
        UsageError: there is no version to go back to, or no key to sign with.
        UntrustedModel: that version has no valid signature.
        WeightsError: it cannot be loaded any more.
        ServiceError: MLflow cannot be reached, or another promotion holds the lock.
    """
    with _moving(name, settings) as (mover, held):
        target = _back_to(mover, held)["champion"]
    version = get_version(f"models:/{name}/{target}", settings)
    statement = statement_of(version, Trust.of(settings))
    files = verify(version, settings)
    if statement is not None and (problems := differences(statement.files, files)):
        raise UntrustedModel(f"{version.label}: {'; '.join(problems[:5])}")
    with _moving(name, settings) as (mover, held):
        targets = _back_to(mover, held)
        if targets["champion"] != target:
            raise UsageError(f"{name}: the aliases have moved meanwhile: roll back again")
        return mover.move(targets, action="rollback", why=why)


def _back_to(mover: _Mover, held: Standing) -> Targets:
    """Where the aliases go in a rollback."""
    champion, previous = held.settled.get("champion"), held.settled.get("previous")
    if champion is not None and mover.aliases().get("champion") != champion:
        return {"previous": previous, "champion": champion}
    if champion is None or previous is None or previous == champion:
        raise UsageError(
            f"{mover.name}: previous is {_shown(previous)}, champion is {_shown(champion)}: "
            "there is no such version to go back to"
        )
    return {"previous": champion, "champion": previous}


def undo(change: AliasChange, *, why: str, settings: Settings) -> None:
    """Restore both aliases to their state before a promotion, if it is still the latest."""
    with _moving(change.name, settings) as (mover, held):
        if held.settled.get("champion") != change.version:
            log.warning("%s: another promotion came later; nothing undone", change.name)
            return
        targets = {"previous": change.previous_before, "champion": change.from_version}
        mover.move(targets, action="undo", why=why)


def challenge(
    version: RegisteredVersion, *, why: str, settings: Settings, gate: GateDecision | None = None
) -> AliasChange:
    """Prove and sign a version and make it the ``challenger``, which waits for a decision.

    Raises:
        UsageError: there is no key to sign with, and unsigned moves are not allowed.
        WeightsError: the version is not READY, does not load, or does not reproduce its output.
        ServiceError: MLflow cannot be reached, or another promotion holds the lock.
    """
    signing_key(settings)
    files = verify(version, settings)
    with _moving(version.name, settings) as (mover, _):
        decision = gate or gate_decision("wait", why[:2000])
        write_statement(mover.client, version, files, decision, settings)
        return mover.move({"challenger": version.version}, action="challenge", why=why)


def withdraw(name: str, version: str, *, why: str, settings: Settings) -> AliasChange | None:
    """Remove ``challenger`` from a version; none: it no longer has the alias.

    Raises:
        ServiceError: MLflow cannot be reached, or another promotion holds the lock.
    """
    with _moving(name, settings) as (mover, _):
        if mover.aliases().get("challenger") != version:
            return None
        return mover.move({"challenger": None}, action="withdraw", why=why)


def confirm(name: str, targets: Targets, *, why: str, settings: Settings) -> AliasChange:
    """Record aliases where they are, by a signed entry.

    Raises:
        UsageError: an alias is elsewhere by now, or there is no key to sign with.
        ServiceError: MLflow cannot be reached, or another promotion holds the lock.
    """
    with _moving(name, settings) as (mover, _):
        there = mover.aliases()
        if any(there.get(alias) != version for alias, version in targets.items()):
            raise UsageError(f"{name}: the aliases have moved meanwhile: sign again")
        return mover.move(targets, action="confirm", why=why)


def history(name: str, settings: Settings) -> list[AliasChange]:
    """All moves of the model's aliases, oldest first; empty if the name is unknown."""
    return [record.change for record in records(name, settings)]


def is_served(name: str, alias: str, settings: Settings) -> bool:
    """Whether the alias is on a version, or should be by the history, whoever wrote that.

    So an alias that was deleted behind our back counts as there, and opening it fails.
    """
    if not has_store(settings):
        return False
    client = connect(settings)
    with service_errors(settings.mlflow_uri):
        if not client.search_registered_models(f"name = '{quoted(name)}'"):
            return False
        there = client.get_registered_model(name).aliases
        changes = read_records(client, name, Trust.of(settings, to_show=True))
    moves = [r.change for r in changes if r.change.alias == alias and r.change.state == "done"]
    return alias in there or (bool(moves) and moves[-1].version is not None)


def records(name: str, settings: Settings) -> list[Record]:
    """:func:`history`, with whether each entry is signed and trusted here."""
    if not has_store(settings):
        return []
    client = connect(settings)
    trust = Trust.of(settings, to_show=True)
    with service_errors(settings.mlflow_uri):
        if not client.search_registered_models(f"name = '{quoted(name)}'"):
            return []
        return read_records(client, name, trust)


def _signed(version: RegisteredVersion, trust: Trust) -> bool:
    try:
        return statement_of(version, trust) is not None or trust.allow_unsigned
    except UntrustedModel:
        return False


def _shown(version: str | None) -> str:
    return f"version {version}" if version else "none"
