"""PairLIE (2023)."""
