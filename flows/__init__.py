"""Prefect flows: order and policy, no computation."""

from mirnet.config import apply_engine_defaults

# before Prefect is imported: it reads its settings then
apply_engine_defaults()
