"""The nightly flow: the champion enhances new images of a bucket.

``python -m flows.enhance SRC DST`` runs it here; deployments run the same.
"""

from __future__ import annotations

import argparse
import sys

from prefect import flow

from flows.batch_artifacts import NightProgress, show_night
from flows.events import announce_drift, announce_harm
from flows.policy import exit_code_of, io_task, load_run_config
from flows.process_group import leave_foreground_group
from flows.run_names import by_date
from flows.safety import Address, redacted_errors, without_secrets
from flows.time_limits import flow_limit
from flows.turns import turn
from mirnet import stages
from mirnet.config import refuse_credentials
from mirnet.errors import TooManyBad
from mirnet.results import EnhanceResult
from mirnet.stages import RunConfig


@io_task("enhance", "enhance")
def enhance_batch(source: str, target: str, run: RunConfig, model: str | None) -> EnhanceResult:
    """Plan, enhance, commit. A retry skips what is done."""
    return stages.enhance(source, target, run, model=model, progress=NightProgress())


@io_task("pin model", "stage")
def pin_model(model: str | None, run: RunConfig) -> str:
    """One model version for the whole run, retries included, independent of later promotions."""
    return stages.pin(model, run)


@without_secrets
@flow(name="enhance", description=__doc__, flow_run_name=by_date)
def enhance(
    source: Address,
    target: Address,
    model: Address | None = None,
    params: str = "cpu",
    overrides: list[str] | None = None,
) -> EnhanceResult:
    """Enhance every dark image under a source that is not done yet.

    Args:
        source: s3://bucket/prefix or a folder.
        target: s3://bucket/prefix or a folder; outputs, manifest and quarantine go there.
        model: models:/NAME@ALIAS, a folder, or base, the model in the package; the champion when
            empty, and never base then.
        params: Preset name or path of a YAML file.
        overrides: Parameters to change, as section.key=value.
    """
    with redacted_errors():
        refuse_credentials(source, target, model)
        run = load_run_config(params, overrides)
        with flow_limit("enhance", "enhance", "stage", "stage"):
            return _enhance(source, target, run, model)


def _enhance(source: str, target: str, run: RunConfig, model: str | None) -> EnhanceResult:
    try:
        with turn("enhance"):
            result = enhance_batch(source, target, run, pin_model(model, run))
    except TooManyBad as bad:
        show(bad.result, run)
        raise
    show(result, run)
    return result


def show(result: EnhanceResult, run: RunConfig) -> None:
    """Artifacts, drift and harm of a finished batch, successful or not."""
    page = stages.read_contact(result, run)
    show_night(result, page, drift_distance=run.params.enhance.drift_distance)
    announce_drift(result)
    announce_harm(result)


def _main(arguments: list[str]) -> int:
    parser = argparse.ArgumentParser(prog="python -m flows.enhance", description=__doc__)
    parser.add_argument("source")
    parser.add_argument("target")
    parser.add_argument("--model")
    parser.add_argument("--params", default="cpu", help="preset or YAML file")
    parser.add_argument("--set", action="append", default=[], metavar="SECTION.KEY=VALUE")
    options = parser.parse_args(arguments)

    def run() -> None:
        from mirnet.cli.show import show_enhancement

        refuse_credentials(options.source, options.target, options.model)
        show_enhancement(
            enhance(options.source, options.target, options.model, options.params, options.set)
        )

    return exit_code_of(run)


if __name__ == "__main__":
    leave_foreground_group()
    sys.exit(_main(sys.argv[1:]))
