"""Measurements behind the claims of docs/benchmarks: ``python -m benchmarks.NAME --help``."""
