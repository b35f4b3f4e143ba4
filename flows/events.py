"""What this pipeline tells Prefect's automations, beside the events that Prefect emits itself.

An event is emitted after the fact, at most once per run, and carries no more than a reader needs to
find the rest. Without a server that takes events, Prefect drops them; nothing else changes.
"""

from __future__ import annotations

from prefect.events import emit_event

from mirnet.results import EnhanceResult, PromotionResult

PROMOTED = "mirnet.model.promoted"
REFUSED = "mirnet.model.refused"
WAITING = "mirnet.model.waiting"
DRIFTED = "mirnet.input.drifted"
HARMFUL = "mirnet.model.harmful"
DATA_CHANGED = "mirnet.data.changed"
UNHEALTHY = "mirnet.health.failed"


def announce_promotion(result: PromotionResult) -> str:
    """Tell whether the gate let a model pass; returns the event's name."""
    name = PROMOTED if result.promoted else REFUSED
    emit_event(
        event=name,
        resource={
            "prefect.resource.id": f"mirnet.model.{result.name}",
            "prefect.resource.name": f"{result.name} version {result.version}",
        },
        payload={
            "version": result.version,
            "previous_version": result.previous_version,
            "reasons": list(result.reasons),
            "run_id": result.run_id,
        },
    )
    return name


def announce_waiting(result: PromotionResult, *, flow_run_id: str, within_s: int) -> None:
    """Tell that a model passed the gate and a paused flow run waits for a person."""
    emit_event(
        event=WAITING,
        resource={
            "prefect.resource.id": f"mirnet.model.{result.name}",
            "prefect.resource.name": f"{result.name} version {result.version}",
        },
        payload={"flow_run_id": flow_run_id, "within_s": within_s, "reasons": list(result.reasons)},
    )


def announce_drift(result: EnhanceResult) -> bool:
    """Tell that tonight's inputs are unlike the training data; False when they are not."""
    if not result.drifted:
        return False
    emit_event(
        event=DRIFTED,
        resource={"prefect.resource.id": "mirnet.input", "prefect.resource.name": result.source},
        payload={
            "columns": list(result.drifted),
            "distances": result.drift,
            "manifest": result.manifest_uri,
        },
    )
    return True


def announce_harm(result: EnhanceResult) -> bool:
    """Tell that the model would have spoilt many of tonight's pictures; False when it did not."""
    if not result.harmful:
        return False
    emit_event(
        event=HARMFUL,
        resource={
            "prefect.resource.id": f"mirnet.model.{result.model}",
            "prefect.resource.name": f"{result.model} version {result.model_version}",
        },
        payload={
            "harm": result.harm,
            "enhanced": result.enhanced,
            "source": result.source,
            "manifest": result.manifest_uri,
            "pictures": result.contact_uri,
        },
    )
    return True


def announce_data_change(*, path: str, digest: str, champion_digest: str) -> None:
    """Tell that the data here are not those that the champion was trained on."""
    emit_event(
        event=DATA_CHANGED,
        resource={
            # the digest is part of the identity, so that one version starts one training
            "prefect.resource.id": f"mirnet.data.{digest}",
            "prefect.resource.name": path,
        },
        payload={"digest": digest, "champion_digest": champion_digest},
    )


def announce_failure(*, check: str, found: str, advice: str) -> None:
    """Tell that an engine or this machine needs somebody."""
    emit_event(
        event=UNHEALTHY,
        resource={"prefect.resource.id": f"mirnet.check.{check}", "prefect.resource.name": check},
        payload={"found": found, "advice": advice},
    )
