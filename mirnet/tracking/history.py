"""The history of a model's aliases: signed entries in tags of the registered model.

An entry is trusted if a trusted key signed it. The state of all aliases follows from the trusted
entries; an alias that is elsewhere was moved by something else. Deleting the latest entries brings
an earlier state back, so that an earlier champion could be served again, but no other model.
"""

from __future__ import annotations

import base64
import binascii
import json
import logging
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any, Literal

from pydantic import BaseModel, ConfigDict, Field

from mirnet.redaction import shown
from mirnet.signing.keys import SigningKey
from mirnet.signing.statement import pre_authentication
from mirnet.tracking.trust import Trust

if TYPE_CHECKING:
    from mlflow import MlflowClient

log = logging.getLogger(__name__)

Action = Literal["promote", "rollback", "undo", "challenge", "withdraw", "confirm"]
Targets = Mapping[str, str | None]

_TAG = "mirnet.history."
_PAYLOAD_TYPE = "application/vnd.mirnet.alias-change+json"
_SIGNATURE = "signature"
_MOST_SHOWN, _LONGEST_CELL = 10, 300


class AliasChange(BaseModel):
    """One move of an alias: what, from what, who, when and why.

    ``targets``: version by alias after it, for all aliases that it moves; entries of 0.2 and
    before have none.
    """

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
    targets: dict[str, str | None] = Field(default_factory=dict)


@dataclass(frozen=True)
class Record:
    """An entry as it was found.

    ``signed``: it has a signature, of whomever; ``key_id``: the trusted key that signed it,
    ``UNSIGNED`` where that is allowed, else none.
    """

    change: AliasChange
    signed: bool
    key_id: str | None

    @property
    def trusted(self) -> bool:
        """Whether it counts."""
        return self.key_id is not None


@dataclass(frozen=True)
class Standing:
    """Version by alias according to the history.

    ``pending``: where the aliases go by a move that is under way, or was cut off;
    ``vouched``: the entries behind it are trusted.
    """

    settled: Targets
    pending: Targets
    vouched: bool

    def allows(self, alias: str, version: str) -> bool:
        """Whether the history put the alias there, or is about to."""
        return self.vouched and version in (self.settled.get(alias), self.pending.get(alias))


def read_records(client: MlflowClient, name: str, trust: Trust) -> list[Record]:
    """All entries, oldest first; what is no entry is left out with a warning."""
    tags = client.get_registered_model(name).tags
    found = []
    for key in sorted(tag for tag in tags if tag.startswith(_TAG)):
        record = _read(tags[key], trust)
        if record is None or (record.change.name, _TAG + record.change.change_id) != (name, key):
            log.warning("%s: the tag %s is no entry of the history", name, key)
            continue
        found.append(record)
    return found


def write_change(client: MlflowClient, change: AliasChange, key: SigningKey | None) -> AliasChange:
    """Write an entry, or its new state over the old one; signed if there is a key."""
    content: dict[str, Any] = change.model_dump(mode="json")
    if key is not None:
        content[_SIGNATURE] = base64.b64encode(key.sign(_message(content))).decode()
    value = json.dumps(content, ensure_ascii=False)
    client.set_registered_model_tag(change.name, _TAG + change.change_id, value)
    return change


def readable(records: Sequence[Record]) -> str:
    """The moves as a Markdown table, newest first; entries that do not count are left out."""
    rows = [
        f"| {_when(c.time_s)} | {c.action} | {c.alias} | {c.from_version or 'none'} to "
        f"{c.version or 'none'} | {c.state} | {_cell(c.who)} | {_cell(c.why)} |"
        for c in (record.change for record in reversed(records) if record.trusted)
    ]
    head = ["| UTC | action | alias | version | state | who | why |", "| " + "--- | " * 7]
    return "\n".join([*head, *rows[:_MOST_SHOWN]])


def _when(time_s: float) -> str:
    return datetime.fromtimestamp(time_s, UTC).strftime("%Y-%m-%d %H:%M")


def _cell(text: str) -> str:
    return shown(text)[:_LONGEST_CELL].replace("|", "/").replace("*", r"\*")


def standing(records: Sequence[Record]) -> Standing:
    """The aliases by the trusted entries; by the unsigned ones if no trusted one exists."""
    trusted = [record.change for record in records if record.trusted]
    if trusted:
        return _replayed(trusted, vouched=True)
    return _replayed([r.change for r in records if not r.signed], vouched=False)


def _replayed(changes: Sequence[AliasChange], *, vouched: bool) -> Standing:
    settled: dict[str, str | None] = {}
    done: list[AliasChange] = []
    for change in changes:
        if change.state != "done":
            continue
        settled |= _targets(change, done)
        if settled.get("challenger") == settled.get("champion"):
            settled.pop("challenger", None)
        done.append(change)
    last = changes[-1] if changes else None
    pending = last.targets if last is not None and last.state == "planned" else {}
    return Standing(settled, pending, vouched)


def _targets(change: AliasChange, before: Iterable[AliasChange]) -> Targets:
    """Of an entry of 0.2 they follow from its other fields."""
    if change.targets:
        return change.targets
    moved: dict[str, str | None] = {change.alias: change.version}
    if change.action in ("promote", "rollback") and change.from_version is not None:
        moved["previous"] = change.from_version
    if change.action == "undo":
        undone = [c for c in before if c.action == "promote" and c.version == change.from_version]
        moved["previous"] = undone[-1].previous_before if undone else None
    return moved


def _read(value: str, trust: Trust) -> Record | None:
    try:
        content = json.loads(value)
        encoded = content.pop(_SIGNATURE, None)
        signature = None if encoded is None else base64.b64decode(encoded, validate=True)
        change = AliasChange.model_validate(content)
    except (AttributeError, binascii.Error, RecursionError, TypeError, ValueError):
        return None
    return Record(change, signature is not None, trust.signer_of(_message(content), signature))


def _message(content: Mapping[str, Any]) -> bytes:
    """What is signed: the fields as they are in the tag, so that later ones do not change it."""
    canonical = json.dumps(content, sort_keys=True, separators=(",", ":"))
    return pre_authentication(canonical.encode(), _PAYLOAD_TYPE)
