"""``mirnet registry verify`` and ``sign``: what is wrong with versions, and versions from before.

A version from before signatures is signed after the same proof as at a promotion, and only if the
registry says that the gate or a person decided about it. One that a former key signed keeps its
decision.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import TypeVar, get_args

from mirnet.config import Settings
from mirnet.errors import UntrustedModel, UsageError, WeightsError
from mirnet.signing.files import differences
from mirnet.signing.statement import GateDecision, Outcome, Statement
from mirnet.tracking.aliases import confirm, records
from mirnet.tracking.client import connect, has_store, service_errors
from mirnet.tracking.history import Record, standing
from mirnet.tracking.registry import check, package_digests, verify
from mirnet.tracking.trust import Trust, gate_decision, signing_key, statement_of, write_statement
from mirnet.tracking.versions import (
    GATE_TAG,
    REASONS_TAG,
    RegisteredVersion,
    get_version,
    list_versions,
)

T = TypeVar("T")
Progress = Callable[[int, int], None]
"""Number done and total."""


@dataclass(frozen=True)
class Finding:
    """The outcome for one version or alias; no problems: all is as it was signed."""

    reference: str
    version: RegisteredVersion
    statement: Statement | None
    problems: tuple[str, ...]


def examine(
    name: str, settings: Settings, reference: str | None = None, *, progress: Progress | None = None
) -> list[Finding]:
    """Verify one version with all its files, or every alias of a model.

    Raises:
        UsageError: no such version, nothing has an alias, or there is no key to verify with.
        ServiceError: MLflow or its artifact store cannot be reached.
    """
    if has_store(settings):  # what is missing is said before a key that is missing
        Trust.of(settings)
    if reference is not None:
        return [_examined(reference, settings)]
    aliases = sorted({a for v in list_versions(name, settings) for a in v.aliases})
    if not aliases:
        raise UsageError(f"{name} has no aliases: name a version, models:/{name}/NUMBER")
    addresses = [f"models:/{name}@{alias}" for alias in aliases]
    return [_examined(address, settings) for address in _counted(addresses, progress)]


def _counted(items: Sequence[T], progress: Progress | None) -> Iterator[T]:
    for number, item in enumerate(items):
        if progress is not None:
            progress(number, len(items))
        yield item


def bundle_of(reference: str, settings: Settings) -> str:
    """The verified signature of a version, as Sigstore bundle for other verifiers.

    Raises:
        UsageError: no such version, or it is unsigned.
        UntrustedModel: the signature is not valid.
    """
    version = get_version(reference, settings)
    if statement_of(version, Trust.of(settings)) is None:
        raise UsageError(f"{version.label} has no signature that can be verified here")
    return version.signature


def sign(
    name: str, settings: Settings, reference: str | None = None, *, progress: Progress | None = None
) -> list[str]:
    """Prove and sign versions without a signature of the present key: one, or all with an alias.

    Then the aliases are recorded by a signed entry, where the history has them.

    Returns:
        What was done, a line each; empty: all was signed already.

    Raises:
        UsageError: no such version, nothing has an alias, or there is no key to sign with.
        UntrustedModel: nobody decided for a version, or an alias is not where the history has it.
        WeightsError: a version does not load, does not reproduce its output, or has other weights
            than were registered.
        ServiceError: MLflow or its artifact store cannot be reached.
    """
    key = signing_key(settings)
    if key is None:
        raise UsageError("there is no key to sign with: run `mirnet keys new`")
    if reference is not None:
        return _sign_version(get_version(reference, settings), key.key_id, settings)
    versions = [v for v in list_versions(name, settings) if v.aliases]
    if not versions:
        raise UsageError(f"{name} has no aliases: name a version, models:/{name}/NUMBER")
    there = {alias: v.version for v in versions for alias in v.aliases}
    unrecorded = _unrecorded(name, there, key.key_id, settings)
    told = [
        line
        for version in _counted(versions[::-1], progress)
        for line in _sign_version(version, key.key_id, settings)
    ]
    if unrecorded:
        confirm(name, unrecorded, why="signed with the present key", settings=settings)
        told += [f"{name}@{alias}: version {v}, recorded" for alias, v in unrecorded.items()]
    return told


def _examined(reference: str, settings: Settings) -> Finding:
    version, statement, problems = get_version(reference, settings), None, []
    try:
        version, statement = check(reference, settings)
    except WeightsError as error:
        problems.append(str(error))
    if statement is None and version.signed:
        statement = _statement_anyway(version, settings)
    if statement is not None:
        problems += differences(statement.files, package_digests(version, settings))
        if statement.facts.gate.outcome == "refuse":
            problems += [f"{version.label} was refused by the gate"] if version.aliases else []
    return Finding(reference, version, statement, tuple(problems))


def _statement_anyway(version: RegisteredVersion, settings: Settings) -> Statement | None:
    """So that changed files are named beside an alias that is elsewhere."""
    try:
        return statement_of(version, Trust.of(settings))
    except UntrustedModel:
        return None


def _unrecorded(
    name: str, there: Mapping[str, str], key_id: str, settings: Settings
) -> dict[str, str]:
    """Aliases to record: none if the entries by this key have them already.

    Raises:
        UntrustedModel: an alias is not where the history has it, signed or not.
    """
    known = records(name, settings)
    held = standing(known)
    for alias, version in there.items():
        if held.settled.get(alias) != version and not held.allows(alias, version):
            raise UntrustedModel(
                f"{name}@{alias} is version {version}, and no move in `mirnet registry history` "
                f"put it there: `mirnet registry promote models:/{name}/{version}` or "
                "`mirnet registry rollback` decides"
            )
    by_this_key = standing([record for record in known if record.key_id == key_id])
    if all(by_this_key.allows(alias, version) for alias, version in there.items()):
        return {}
    order = ("challenger", "previous", "champion")
    return {alias: there[alias] for alias in order if alias in there}


def _sign_version(version: RegisteredVersion, key_id: str, settings: Settings) -> list[str]:
    before = statement_of(version, Trust.of(settings)) if version.signed else None
    if before is not None and before.key_id == key_id:
        return []
    gate = before.facts.gate if before else _decision(version, records(version.name, settings))
    files = verify(version, settings)
    if before is not None and (problems := differences(before.files, files)):
        raise UntrustedModel(f"{version.label}: {'; '.join(problems[:5])}")
    client = connect(settings)
    with service_errors(settings.mlflow_uri):
        write_statement(client, version, files, gate, settings)
    return [f"{version.label}: {len(files)} files signed, gate: {gate.outcome}"]


def _decision(version: RegisteredVersion, known: Sequence[Record]) -> GateDecision:
    """What was decided about a version when there were no signatures.

    Raises:
        UntrustedModel: nothing was.
    """
    by_hand = [
        record.change.why
        for record in known
        if (record.change.action, record.change.state) == ("promote", "done")
        and record.change.version == version.version
    ]
    outcome, reasons = version.tags.get(GATE_TAG), version.tags.get(REASONS_TAG, "")
    decisions: dict[str, Outcome] = {known: known for known in get_args(Outcome)}
    if outcome in decisions and not (outcome == "refuse" and by_hand):
        return gate_decision(decisions[outcome], reasons)
    if by_hand:
        return gate_decision("by hand", by_hand[-1])
    raise UntrustedModel(
        f"{version.label}: neither the gate nor a person decided about it: "
        f"`mirnet registry promote {version.address}` does"
    )
