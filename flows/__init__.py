"""Prefect flows: order and policy, no computation."""

from mirnet.config import apply_engine_defaults
from mirnet.logs import protect_output

# before Prefect is imported: it reads its settings then
apply_engine_defaults()
# before the first record of a run: they are stored by the server
protect_output()
