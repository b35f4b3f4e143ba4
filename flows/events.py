"""Custom events for Prefect's automations.

An event is emitted after the fact, at most once per run, with references to the details. Without a
server that accepts events, Prefect drops them.
"""

from __future__ import annotations

from typing import Any

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
    """Announce the gate's decision on a model; returns the event's name."""
    name = PROMOTED if result.promoted else REFUSED
    payload = {
        "version": result.version,
        "previous_version": result.previous_version,
        "reasons": list(result.reasons),
        "run_id": result.run_id,
    }
    _emit_of_model(name, result.name, result.version, payload)
    return name


def announce_waiting(result: PromotionResult, *, flow_run_id: str, within_s: int) -> None:
    """Announce that a model passed the gate and a paused flow run waits for approval."""
    payload = {"flow_run_id": flow_run_id, "within_s": within_s, "reasons": list(result.reasons)}
    _emit_of_model(WAITING, result.name, result.version, payload)


def announce_drift(result: EnhanceResult) -> bool:
    """Announce drift of the inputs from the training data; False without drift."""
    if result.drifted:
        payload = {
            "columns": list(result.drifted),
            "distances": result.drift,
            "manifest": result.manifest_uri,
        }
        _emit(DRIFTED, "mirnet.input", result.source, payload)
    return bool(result.drifted)


def announce_harm(result: EnhanceResult) -> bool:
    """Announce that too many outputs failed the safety checks; False otherwise."""
    if result.harmful:
        payload = {
            "harm": result.harm,
            "enhanced": result.enhanced,
            "source": result.source,
            "manifest": result.manifest_uri,
            "pictures": result.contact_uri,
        }
        _emit_of_model(HARMFUL, result.model, result.model_version, payload)
    return result.harmful


def announce_data_change(*, path: str, digest: str, champion_digest: str) -> None:
    """Announce that the data differ from those of the champion's training."""
    # the digest is part of the identity, so that one version starts one training
    payload = {"digest": digest, "champion_digest": champion_digest}
    _emit(DATA_CHANGED, f"mirnet.data.{digest}", path, payload)


def announce_failure(*, check: str, found: str, advice: str) -> None:
    """Announce a failed check of a service or of this machine."""
    _emit(UNHEALTHY, f"mirnet.check.{check}", check, {"found": found, "advice": advice})


def _emit_of_model(event: str, name: str, version: str | None, payload: dict[str, Any]) -> None:
    _emit(event, f"mirnet.model.{name}", f"{name} version {version}", payload)


def _emit(event: str, resource_id: str, resource_name: str, payload: dict[str, Any]) -> None:
    emit_event(
        event=event,
        resource={"prefect.resource.id": resource_id, "prefect.resource.name": resource_name},
        payload=payload,
    )
