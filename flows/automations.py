"""Automations of a Prefect server, defined in code.

``python -m flows.automations`` creates or updates them, by name; notifications go to the webhook
whose address is in the file ``--webhook-file`` (the address is a secret and therefore not an
argument). Without one, nothing is sent.
"""

from __future__ import annotations

import argparse
import sys
from datetime import timedelta
from pathlib import Path
from typing import cast
from uuid import UUID

from prefect.automations import Automation
from prefect.blocks.abstract import NotificationBlock
from prefect.blocks.notifications import CustomWebhookNotificationBlock, SlackWebhook
from prefect.client.orchestration import SyncPrefectClient, get_client
from prefect.client.schemas.objects import StateType
from prefect.events.actions import ChangeFlowRunState, RunDeployment, SendNotification
from prefect.events.schemas.automations import EventTrigger, Posture
from prefect.exceptions import ObjectNotFound
from pydantic import SecretStr

from flows.events import DATA_CHANGED, DRIFTED, HARMFUL, PROMOTED, REFUSED, UNHEALTHY, WAITING
from flows.policy import exit_code_of
from mirnet.errors import UsageError

SILENCE_S = 90
"""Three heartbeats of a worker with PREFECT_FLOWS_HEARTBEAT_FREQUENCY=30."""
_BLOCK = "mirnet-alerts"
_FAILURES = {f"prefect.flow-run.{end}" for end in ("Failed", "Crashed", "TimedOut")}
_ENDS = _FAILURES | {f"prefect.flow-run.{end}" for end in ("Completed", "Cancelled")}
_HEARTBEAT = "prefect.flow-run.heartbeat"
_QUIET = timedelta(hours=6)


def automations(
    *,
    retrain: UUID | None,
    enhance: UUID | None,
    alerts: UUID | None,
    silence_s: float = SILENCE_S,
) -> list[Automation]:
    """All automations, given the ids of the deployments and of the notifier."""
    wanted = [_crash_zombies(silence_s)]
    if retrain is not None:
        wanted += [
            _run_on(DRIFTED, retrain, "mirnet: retrain after drift"),
            _run_on(DATA_CHANGED, retrain, "mirnet: retrain on new data"),
        ]
    if enhance is not None:
        wanted.append(_run_on(PROMOTED, enhance, "mirnet: enhance after promotion"))
    if alerts is not None:
        wanted += _notifications(alerts)
    return wanted


def _crash_zombies(silence_s: float) -> Automation:
    """For runs whose process died without a report: a lost host, an out-of-memory kill."""
    return Automation(
        name="mirnet: crash runs that went silent",
        description=f"No heartbeat for {silence_s:.0f} s and no end: the process is gone.",
        trigger=EventTrigger(
            after={_HEARTBEAT},
            expect={_HEARTBEAT} | _ENDS,
            match={"prefect.resource.id": "prefect.flow-run.*"},
            for_each={"prefect.resource.id"},
            posture=Posture.Proactive,
            threshold=1,
            within=timedelta(seconds=silence_s),
        ),
        actions=[
            ChangeFlowRunState(
                state=StateType.CRASHED, message="No heartbeat: the process of this run is gone."
            )
        ],
    )


def _run_on(event: str, deployment: UUID, name: str) -> Automation:
    return Automation(
        name=name,
        description="At most one run in six hours, however often the event comes.",
        trigger=EventTrigger(
            expect={event},
            for_each={"prefect.resource.id"},
            posture=Posture.Reactive,
            threshold=1,
            within=_QUIET,
        ),
        actions=[RunDeployment(source="selected", deployment_id=deployment)],
    )


def _notifications(alerts: UUID) -> list[Automation]:
    return [
        Automation(
            name="mirnet: tell about failed runs",
            trigger=EventTrigger(
                expect=_FAILURES,
                match_related={
                    "prefect.resource.role": "tag",
                    "prefect.resource.id": "prefect.tag.mirnet",
                },
                posture=Posture.Reactive,
                threshold=1,
                within=timedelta(0),
            ),
            actions=[
                SendNotification(
                    block_document_id=alerts,
                    subject="{{ flow.name }} {{ flow_run.state.name }}",
                    body="{{ flow_run.name }}: {{ flow_run.state.message }}\n{{ flow_run|ui_url }}",
                )
            ],
        ),
        Automation(
            name="mirnet: tell about the gate and the machine",
            trigger=EventTrigger(
                expect={REFUSED, WAITING, HARMFUL, UNHEALTHY},
                for_each={"prefect.resource.id"},
                posture=Posture.Reactive,
                threshold=1,
                within=_QUIET,
            ),
            actions=[
                SendNotification(
                    block_document_id=alerts,
                    subject="{{ event.event }}: {{ event.resource.name }}",
                    body="{{ event.payload }}",
                )
            ],
        ),
    ]


def notifier(address: str) -> NotificationBlock:
    """A block that sends to a Slack or other webhook; stores the address as a secret."""
    if address.startswith("https://hooks.slack.com/"):
        return SlackWebhook(url=SecretStr(address))
    return CustomWebhookNotificationBlock(
        name=_BLOCK,
        url="{{url}}",
        secrets={"url": address},
        json_data={"subject": "{{subject}}", "body": "{{body}}"},
    )


def apply(
    *, deployment: str | None = None, webhook: str | None = None, silence_s: float = SILENCE_S
) -> list[str]:
    """Create or update all automations on the configured server; returns their names."""
    alerts = cast(UUID, notifier(webhook).save(_BLOCK, overwrite=True)) if webhook else None
    with get_client(sync_client=True) as client:
        wanted = automations(
            retrain=_deployment(client, f"retrain/{deployment or 'retrain'}"),
            enhance=_deployment(client, f"enhance/{deployment or 'enhance'}"),
            alerts=alerts,
            silence_s=silence_s,
        )
        for automation in wanted:
            for existing in client.read_automations_by_name(automation.name):
                client.delete_automation(existing.id)
            automation.create()
    return [automation.name for automation in wanted]


def _deployment(client: SyncPrefectClient, name: str) -> UUID | None:
    try:
        return client.read_deployment_by_name(name).id
    except ObjectNotFound:
        return None


def _read_webhook(path: Path | None) -> str | None:
    if path is None:
        return None
    try:
        address = path.read_text(encoding="utf-8").strip()
    except OSError as error:
        raise UsageError(f"--webhook-file {path}: {error.strerror}") from error
    if not address.startswith(("https://", "http://")):
        raise UsageError(f"--webhook-file {path}: expected one line with an http address")
    return address


def _main(arguments: list[str]) -> int:
    parser = argparse.ArgumentParser(prog="python -m flows.automations", description=__doc__)
    parser.add_argument(
        "--deployment",
        help="name of the deployments to start, such as laptop [that of their flow]",
    )
    parser.add_argument("--webhook-file", type=Path, help="file with the webhook's address")
    parser.add_argument(
        "--silence",
        type=float,
        default=SILENCE_S,
        metavar="SECONDS",
        help="without a heartbeat, after which a run counts as dead; more than the workers' "
        "PREFECT_FLOWS_HEARTBEAT_FREQUENCY [%(default)s]",
    )
    options = parser.parse_args(arguments)

    def run() -> None:
        webhook = _read_webhook(options.webhook_file)
        for name in apply(
            deployment=options.deployment, webhook=webhook, silence_s=options.silence
        ):
            print(name)

    return exit_code_of(run)


if __name__ == "__main__":
    sys.exit(_main(sys.argv[1:]))
