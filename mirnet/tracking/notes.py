"""What people read in MLflow's own pages: descriptions with images and links, and saved views.

Links are relative to the page, so that they hold behind any address of the server. MLflow has no
default columns of a list of runs on the server's side; a saved view is a tag of the experiment.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from mlflow import MlflowClient
    from mlflow.entities import Experiment

NOTE_TAG = "mlflow.note.content"
IMAGES_SECTION = "Images"
PREVIEW, SMALL_PREVIEW = "preview.jpg", "preview-small.jpg"
_ALT = "![dark, enhanced, reference]("
# MLflow 3.17 folds a long description and fades its lower part: the image stays above
_PREVIEW_HEIGHT = 72
VIEW = "mirnet-scores"
"""Key of the saved view, for ``?viewStateShareKey=`` in the address of a list of runs."""
_VIEW_TAG = f"mlflow.sharedViewState.{VIEW}"
_LONGEST = 5000
_COLUMNS = {
    "mirnet-train": ("val/best_psnr", "val/psnr", "val/ssim", "train/loss"),
    "mirnet-search": ("val/psnr", "search/gain", "search/gmac", "search/seconds_per_megapixel"),
    "mirnet-evaluate": (
        "eval/psnr",
        "eval/psnr_low",
        "eval/psnr_high",
        "eval/ssim",
        "eval/gain_over_autocontrast",
    ),
}


def with_section(note: str, title: str, body: str) -> str:
    """A note with this section replaced, or added at its end; the rest stays as people left it.

    The section ends at the next heading of its level; the whole is cut to what MLflow stores.
    """
    heading = f"## {title}\n"
    before, found, after = f"\n{note.strip()}\n".partition(f"\n{heading}")
    rest = ""
    if found:
        _, next_heading, tail = f"\n{after}".partition("\n## ")
        rest = f"\n\n## {tail.strip()}" if next_heading else ""
    kept = f"{before.strip()}\n\n" if before.strip() else ""
    room = max(0, _LONGEST - len(kept) - len(heading) - len(rest))
    return f"{kept}{heading}{body.strip()[:room]}{rest}"[:_LONGEST]


def with_preview(note: str, experiment_id: str, run_id: str) -> str:
    """A note with the image of the run at its top, in place of an earlier one."""
    small = f"{_ALT}get-artifact?path={SMALL_PREVIEW}&run_uuid={run_id})"
    image = f"[{small}]({run_page(experiment_id, run_id)}/artifacts/{PREVIEW})"
    # earlier versions had the image in a section of its own
    lines = [
        line
        for line in note.splitlines()
        if _ALT not in line and line.strip() != f"## {IMAGES_SECTION}"
    ]
    kept = "\n".join(lines).strip()
    return f"{image}\n\n{kept}".strip()[:_LONGEST]


def shrunk(preview: Path) -> Path:
    """A copy of the image beside it, of the height at which MLflow does not cut it."""
    from PIL import Image

    with Image.open(preview) as image:
        height = min(_PREVIEW_HEIGHT, image.height)
        width = max(1, round(image.width * height / image.height))
        small = preview.with_name(SMALL_PREVIEW)
        image.resize((width, height), Image.Resampling.LANCZOS).save(small, quality=92)
    return small


def run_page(experiment_id: str, run_id: str) -> str:
    """Address of a run, relative to MLflow's page."""
    return f"#/experiments/{experiment_id}/runs/{run_id}"


def model_page(experiment_id: str, model_id: str) -> str:
    """Address of a logged model, relative to MLflow's page."""
    return f"#/experiments/{experiment_id}/models/{model_id}"


def version_page(name: str, version: str) -> str:
    """Address of a registered version, relative to MLflow's page."""
    return f"#/models/{name}/versions/{version}"


def runs_page(experiment_id: str) -> str:
    """Address of the list of runs with PSNR and SSIM as columns, relative to MLflow's page."""
    return f"#/experiments/{experiment_id}/runs?viewStateShareKey={VIEW}"


def has_view(experiment: Experiment) -> bool:
    """Whether the view of :func:`runs_page` is there: stores of earlier versions have none."""
    return _VIEW_TAG in experiment.tags


def prepare_experiment(client: MlflowClient, experiment: Experiment) -> None:
    """Saved view and description, where the experiment has none."""
    columns = _COLUMNS.get(experiment.name)
    if columns is None:
        return
    experiment_id, tags = experiment.experiment_id, experiment.tags
    if _VIEW_TAG not in tags:
        client.set_experiment_tag(experiment_id, _VIEW_TAG, _view(columns))
    if NOTE_TAG not in tags:
        note = f"[Runs with PSNR and SSIM as columns]({runs_page(experiment_id)})"
        client.set_experiment_tag(experiment_id, NOTE_TAG, note)


def _view(columns: tuple[str, ...]) -> str:
    """As the button *Save view* writes it (MLflow 3.17)."""
    first = f"metrics.`{columns[0]}`"
    shown = [f"metrics.`{name}`" for name in columns]
    state = {
        "searchFilter": "",
        "orderByKey": first,
        "orderByAsc": False,
        "startTime": "ALL",
        "lifecycleFilter": "Active",
        "datasetsFilter": [],
        "modelVersionFilter": "All Runs",
        "selectedColumns": shown,
        "columnOrder": [],
        "columnWidths": {},
        "runsExpanded": {},
        "runsPinned": [],
        "runsHidden": [],
        "runsVisibilityMap": {},
        "runsHiddenMode": "FIRST_10_RUNS",
        "viewMaximized": False,
        "runListHidden": False,
        "isAccordionReordered": False,
        "useGroupedValuesInCharts": True,
        "hideEmptyCharts": True,
        "groupBy": None,
        "groupsExpanded": {},
        "autoRefreshEnabled": True,
    }
    saved = {"name": "PSNR and SSIM", "createdAt": 0, "updatedAt": 0, "state": json.dumps(state)}
    return json.dumps(saved)
