"""The terminal, and untrusted names made safe for it."""

from __future__ import annotations

from rich.console import Console

console = Console()


def printable(text: str) -> str:
    """Text with control characters (cursor, colour, bell, line break) escaped."""
    if text.isprintable():
        return text
    return "".join(c if c.isprintable() else ascii(c)[1:-1] for c in text)
