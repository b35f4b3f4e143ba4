"""The composition root: the stages as plain functions, typed input to typed result.

The Prefect flows and the command line both call them. Each stage writes its result as JSON to the
reports folder, under its own name, from where the next one can go on.
"""

from mirnet.stages.data import (
    blocking_message,
    check_version,
    publish_validation,
    validate,
)
from mirnet.stages.enhancing import enhance, pin, plan_enhancement, read_contact
from mirnet.stages.evaluating import evaluate
from mirnet.stages.models import champion, open_enhancer
from mirnet.stages.promotion import (
    CHALLENGER,
    check_champion,
    promote,
    resolve_approval,
    undo_promotion,
)
from mirnet.stages.run import RunConfig, check_services, load_run_config
from mirnet.stages.training import train

__all__ = [
    "CHALLENGER",
    "RunConfig",
    "blocking_message",
    "champion",
    "check_champion",
    "check_services",
    "check_version",
    "enhance",
    "evaluate",
    "load_run_config",
    "open_enhancer",
    "pin",
    "plan_enhancement",
    "promote",
    "publish_validation",
    "read_contact",
    "resolve_approval",
    "train",
    "undo_promotion",
    "validate",
]
