"""Trials of a search as child runs in MLflow."""

from __future__ import annotations

import logging
from collections.abc import Callable
from dataclasses import dataclass

from mirnet.errors import ServiceError
from mirnet.results import DataVersion
from mirnet.search.rows import Plan, Rows, Trial
from mirnet.stages.run import RunConfig, run_tags

log = logging.getLogger(__name__)


@dataclass
class TrialRuns:
    """Writes ended trials as child runs; a failure of MLflow is made good at the end."""

    run: RunConfig
    version: DataVersion
    plan: Plan
    parent_id: str
    rows: Rows
    told: Callable[[Trial], None] | None

    def ended(self, trial: Trial) -> None:
        if self.told is not None:
            self.told(trial)
        try:
            self.log(trial)
        except ServiceError as error:
            log.warning("%s is not in MLflow yet: %s", trial.key, error)

    def log_all(self) -> None:
        """Those that are not there, of earlier calls as well."""
        for trial in self.rows.trials().values():
            if trial.state != "running" and trial.run_id is None:
                self.log(trial)

    def log(self, trial: Trial) -> None:
        from mirnet.tracking import track

        tags = run_tags(self.run, self.version) | {
            "mlflow.parentRunId": self.parent_id,
            "mirnet.search": self.plan.name,
            "mirnet.trial": trial.label,
            "mirnet.trial_state": trial.state,
            "mirnet.trial_reason": trial.reason,
        }
        name = f"{self.plan.name}-{trial.key}"
        with track(self.run.settings, purpose="search", name=name, key=name, tags=tags) as child:
            child.log_params(trial.params)
            for point in trial.points:
                values = {"val/psnr": point.psnr, "val/ssim": point.ssim}
                child.log_metrics(values, step=point.epoch, data=self.version)
            cost = {
                "search/gmac": trial.gmac,
                "search/parameters": float(trial.parameters),
                "search/seconds_per_megapixel": trial.seconds_per_megapixel or 0.0,
                "search/steps": float(trial.steps or 0),
                "search/seconds": trial.seconds,
            }
            child.log_metrics(cost)
        if trial.state == "failed":
            child.finish("FAILED")
        self.rows.save(trial.model_copy(update={"run_id": child.run_id}))
