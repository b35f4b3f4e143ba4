"""Manual approval before a model goes into service, enabled by ``promote.approval_within_s``.

The flow run is Paused until then: its page in Prefect has a form, and the time is limited.
"""

from __future__ import annotations

from prefect import get_run_logger
from prefect.artifacts import create_markdown_artifact
from prefect.exceptions import FlowPauseTimeout
from prefect.flow_runs import pause_flow_run
from prefect.input import RunInput
from prefect.runtime import flow_run
from prefect.settings import get_current_settings
from pydantic import Field

from flows.events import announce_waiting
from flows.safety import markdown_text
from mirnet.errors import UsageError
from mirnet.results import Approval, EvaluationResult, PromotionResult

POLL_S = 10


class ApprovalForm(RunInput):
    """The form on Prefect's page when the run is resumed."""

    approved: bool = Field(description="put the model into service tonight")
    who: str = Field(min_length=1, description="your name; it is kept in the registry's history")
    why: str = Field("", description="reason of the decision")


def check_approval(within_s: int | None) -> None:
    """Approval needs a server that people reach, before any compute is spent.

    Raises:
        UsageError: approval is required and there is no Prefect server.
    """
    if within_s is not None and not get_current_settings().api.url:
        raise UsageError(
            "promote.approval_within_s needs a Prefect server, where a person can answer: "
            "set PREFECT_API_URL, or promote.approval_within_s=null"
        )


def ask_person(promotion: PromotionResult, evaluation: EvaluationResult, within_s: int) -> Approval:
    """Pause this flow run until a person answers or the time is over; no answer refuses."""
    page = evaluation.report_url or evaluation.report_path
    reasons = "\n".join(f"- {markdown_text(reason)}" for reason in promotion.reasons)
    text = (
        f"{markdown_text(promotion.name)} version {promotion.version} passed the gate and is the "
        "challenger.\n\n"
        f"{reasons}\n\nImages: {page}\n\nResume this run within {within_s} s, or it is refused."
    )
    create_markdown_artifact(key="approval", markdown=text)
    announce_waiting(promotion, flow_run_id=str(flow_run.get_id()), within_s=within_s)
    get_run_logger().info(
        "%s version %s waits for approval for %d s", promotion.name, promotion.version, within_s
    )
    try:
        form = pause_flow_run(
            wait_for_input=ApprovalForm.with_initial_data(description=text),
            timeout=within_s,
            poll_interval=min(POLL_S, within_s),
        )
    except FlowPauseTimeout:
        return Approval(approved=False, who="nobody", why=f"no answer within {within_s} s")
    return Approval(approved=form.approved, who=form.who, why=form.why)
