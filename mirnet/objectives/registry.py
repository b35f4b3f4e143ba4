"""The registry of objectives: one entry per loss term, the keys of ``train.loss``.

Entries load without torch. Built-in ones are found by folder: ``mirnet/objectives/KIND/entry.py``
calls :func:`register`. Those of another package register themselves in the module that its entry
point in the group ``mirnet.models`` names.
"""

from __future__ import annotations

import difflib
import functools
import importlib
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from mirnet.errors import UsageError

if TYPE_CHECKING:
    from mirnet.objectives.total import Term


@dataclass(frozen=True, kw_only=True, eq=False)
class Objective:
    """The entry of a loss term.

    Attributes:
        name: key in ``train.loss``; lower case, with hyphens.
        description: what it measures.
        paper: authors, venue and year.
        terms: the module whose ``TERMS`` has the function under the name.
        reference: whether it reads the reference image.
        output: whether it reads the output of the network, beside by-products.
        details: by-products of the network's training pass that it reads
            (:class:`~mirnet.models.network.Prediction`).
        features: whether it reads features of a VGG, whose weights the user brings.
        discriminator: whether it reads scores of a discriminator, which is trained with the
            network.
    """

    name: str
    description: str
    paper: str
    terms: str
    reference: bool = True
    output: bool = True
    details: frozenset[str] = frozenset()
    features: bool = False
    discriminator: bool = False

    def load(self) -> Term:
        """The function; imports torch."""
        term: Term = importlib.import_module(self.terms).TERMS[self.name]
        return term


_objectives: dict[str, Objective] = {}


def register(*objectives: Objective) -> None:
    """Add loss terms.

    Raises:
        ValueError: a name is taken.
    """
    for objective in objectives:
        if objective.name in _objectives:
            raise ValueError(f"there is an objective named {objective.name} already")
        _objectives[objective.name] = objective


def unregister(name: str) -> None:
    """Remove a loss term from the registry; for tests."""
    del _objectives[name]


def objectives() -> tuple[Objective, ...]:
    """All entries, sorted by name."""
    _find()
    return tuple(_objectives[name] for name in sorted(_objectives))


def by_name(name: str) -> Objective:
    """The entry of a loss term.

    Raises:
        UsageError: there is none; suggests the most similar name and lists all.
    """
    _find()
    if name not in _objectives:
        known = sorted(_objectives)
        near = difflib.get_close_matches(name, known, n=1)
        hint = f", did you mean {near[0]}?" if near else ";"
        raise UsageError(f"train.loss: no term {name!r}{hint} Known: {', '.join(known)}")
    return _objectives[name]


@functools.cache
def _find() -> None:
    for entry in sorted(Path(__file__).parent.glob("*/entry.py")):
        importlib.import_module(f"mirnet.objectives.{entry.parent.name}.entry")
