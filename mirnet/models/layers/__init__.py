"""What the networks share: one layer per module."""
