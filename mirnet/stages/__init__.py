"""The composition root: the stages as plain functions, typed input to typed result.

The Prefect flows and the command line call these and nothing else. Each stage writes its result
as JSON to the reports folder, under its own name, from where the next one can go on.
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
from mirnet.stages.promotion import CHALLENGER, check_champion, promote, settle, undo_promotion
from mirnet.stages.run import Run, check_services, open_run
from mirnet.stages.training import train

__all__ = [
    "CHALLENGER",
    "Run",
    "blocking_message",
    "champion",
    "check_champion",
    "check_services",
    "check_version",
    "enhance",
    "evaluate",
    "open_enhancer",
    "open_run",
    "pin",
    "plan_enhancement",
    "promote",
    "publish_validation",
    "read_contact",
    "settle",
    "train",
    "undo_promotion",
    "validate",
]
