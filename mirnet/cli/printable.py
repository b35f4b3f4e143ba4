"""Names that others gave, fit for a terminal."""

from __future__ import annotations


def printable(text: str) -> str:
    """With what moves the cursor, colours, rings or breaks a line written as an escape."""
    if text.isprintable():
        return text
    return "".join(c if c.isprintable() else ascii(c)[1:-1] for c in text)
