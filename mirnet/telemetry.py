"""Metrics for Prometheus, as a file for node_exporter's textfile collector.

A file rather than an endpoint, since the processes of the pipeline are short-lived.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path

from mirnet.atomic import write_atomically

_NAME = re.compile(r"[a-z][a-z0-9_]*")
_ESCAPES = str.maketrans({"\\": r"\\", '"': r"\"", "\n": r"\n"})


@dataclass(frozen=True)
class Gauge:
    """One value with its labels."""

    name: str
    help: str
    value: float
    labels: Mapping[str, str] = field(default_factory=dict)

    def __post_init__(self) -> None:
        assert _NAME.fullmatch(self.name), self.name

    @property
    def line(self) -> str:
        """In the exposition format."""
        inner = ",".join(f'{k}="{v.translate(_ESCAPES)}"' for k, v in sorted(self.labels.items()))
        return f"{self.name}{{{inner}}} {self.value!r}" if inner else f"{self.name} {self.value!r}"


def render(gauges: Iterable[Gauge]) -> str:
    """The exposition format, with the help of each name once."""
    by_name: dict[str, list[Gauge]] = {}
    for gauge in gauges:
        by_name.setdefault(gauge.name, []).append(gauge)
    blocks = [
        "\n".join(
            [f"# HELP {name} {same[0].help}", f"# TYPE {name} gauge", *(g.line for g in same)]
        )
        for name, same in by_name.items()
    ]
    return "\n".join(blocks) + "\n"


def write_textfile(path: Path, gauges: Iterable[Gauge]) -> Path:
    """Write atomically, readable for the collector's account whatever the umask is."""
    return write_atomically(path, render(gauges), mode=0o644)
