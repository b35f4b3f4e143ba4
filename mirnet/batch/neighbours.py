"""Which inputs come right before another one in its folder, in the order of their keys.

Decided by the listing alone: not by what was done when, by whom or in which order.
"""

from __future__ import annotations

import sqlite3
from collections.abc import Iterable

from mirnet.batch.ledger import InputVersion
from mirnet.storage.store import ObjectInfo

NUM_BEFORE = 4

_TABLES = """
CREATE TABLE inputs(folder TEXT, key TEXT, version TEXT, readable INTEGER,
                    PRIMARY KEY (folder, key)) WITHOUT ROWID;
CREATE INDEX todo_keys ON todo(key);
"""
# a quarantined one counts among the four, and is not read again
_BEFORE = """
SELECT near.key, near.version FROM
    (SELECT * FROM inputs WHERE folder = ? AND key < ? ORDER BY key DESC LIMIT ?) AS near
    LEFT JOIN todo ON todo.key = near.key
    LEFT JOIN done ON done.key = near.key AND done.version = near.version
WHERE readable AND CASE WHEN todo.key IS NULL THEN done.status IS NOT 'quarantined'
                        ELSE todo.deaths < ? END
ORDER BY near.key DESC
"""
_ISOLATE = """
UPDATE todo SET turn = ? WHERE turn < ? AND key IN
    (SELECT key FROM inputs WHERE folder = ? AND key > ? ORDER BY key LIMIT ?)
"""


class Neighbours:
    """In the index of a plan, beside its tables ``todo`` and ``done``.

    Args:
        max_bytes: larger inputs are not read.
        max_deaths: an input of which as many processes died is not read.
    """

    def __init__(self, db: sqlite3.Connection, *, max_bytes: int, max_deaths: int) -> None:
        self._db, self._max_bytes, self._max_deaths = db, max_bytes, max_deaths
        db.executescript(_TABLES)

    def add(self, info: ObjectInfo) -> None:
        """An input of the listing, in any order."""
        readable = not info.problem and info.size <= self._max_bytes
        self._db.execute(
            "INSERT OR REPLACE INTO inputs VALUES (?, ?, ?, ?)",
            (_folder(info.key), info.key, info.version, readable),
        )

    def before(self, key: str) -> tuple[InputVersion, ...]:
        """Up to four, the nearest first; without those of them that have no pixels to show."""
        found = self._db.execute(_BEFORE, (_folder(key), key, NUM_BEFORE, self._max_deaths))
        return tuple((row["key"], row["version"]) for row in found)

    def isolate(self, suspects: Iterable[str], *, turn: int) -> None:
        """Give those that come after suspects that turn: they read the suspect too."""
        for key in suspects:
            self._db.execute(_ISOLATE, (turn, turn, _folder(key), key, NUM_BEFORE))


def _folder(key: str) -> str:
    return key.rpartition("/")[0]
