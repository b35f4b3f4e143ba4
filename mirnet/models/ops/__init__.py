"""Fast forms of operations, and which of them runs where."""
