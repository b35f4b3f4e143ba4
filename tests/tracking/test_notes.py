"""Descriptions in MLflow: sections of ours among the text of people; saved views."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
from PIL import Image

from mirnet.config import Settings
from mirnet.tracking import connect, track
from mirnet.tracking.notes import VIEW, with_preview, with_section


def test_a_section_is_replaced_and_the_rest_stays() -> None:
    note = with_section("Written by hand.", "Links", "- one")
    assert note == "Written by hand.\n\n## Links\n- one"
    note = with_section(note, "Decision", "yes")
    note = with_section(note, "Links", "- two")
    assert note == "Written by hand.\n\n## Links\n- two\n\n## Decision\nyes"
    assert with_section("", "Links", "- one") == "## Links\n- one"


def test_a_long_section_is_cut_and_not_the_text_before_it() -> None:
    note = with_section("kept" * 100, "Links", "x" * 9000)
    assert note.startswith("kept" * 100) and len(note) == 5000


def test_the_image_is_at_the_top_and_replaces_that_of_earlier_versions() -> None:
    old = "## Images\n![dark, enhanced, reference](get-artifact?path=preview.jpg&run_uuid=r)\n\n"
    note = with_preview(f"By hand.\n\n{old}## Links\none", "2", "r")
    image = "get-artifact?path=preview-small.jpg&run_uuid=r"
    assert note == (
        f"[![dark, enhanced, reference]({image})](#/experiments/2/runs/r/artifacts/preview.jpg)"
        "\n\nBy hand.\n\n\n## Links\none"
    )
    assert with_preview(note, "2", "r") == note


def test_a_preview_is_small_enough_for_the_page(store: Settings) -> None:
    with track(store, purpose="train", name="one") as run:
        run.log_preview(np.zeros((288, 872, 3), np.uint8))
        run.log_note("Links", "one")
    client = connect(store)
    note = client.get_run(run.run_id).data.tags["mlflow.note.content"]
    assert note.startswith("[![dark") and note.endswith("## Links\none")
    root = Path(client.download_artifacts(run.run_id, ""))
    sizes = {path.name: Image.open(path).size for path in root.glob("*.jpg")}
    assert sizes == {"preview.jpg": (872, 288), "preview-small.jpg": (218, 72)}


def test_psnr_and_ssim_are_columns_of_the_saved_view(store: Settings) -> None:
    client = connect(store)
    with track(store, purpose="evaluate", name="scored") as run:
        pass
    experiment = client.get_experiment(run.experiment_id)
    saved = json.loads(experiment.tags[f"mlflow.sharedViewState.{VIEW}"])
    columns = json.loads(saved["state"])["selectedColumns"]
    assert {"metrics.`eval/psnr`", "metrics.`eval/ssim`"} <= set(columns)
    assert f"viewStateShareKey={VIEW}" in experiment.tags["mlflow.note.content"]

    client.set_experiment_tag(run.experiment_id, "mlflow.note.content", "by hand")
    with track(store, purpose="evaluate", name="another"):
        pass
    again = client.get_experiment(run.experiment_id)
    assert again.tags["mlflow.note.content"] == "by hand"
