"""Untrusted names, made safe for a terminal."""

from __future__ import annotations


def printable(text: str) -> str:
    """Text with control characters (cursor, colour, bell, line break) escaped."""
    if text.isprintable():
        return text
    return "".join(c if c.isprintable() else ascii(c)[1:-1] for c in text)
