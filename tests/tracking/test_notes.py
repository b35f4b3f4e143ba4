"""Descriptions in MLflow: sections of ours among the text of people; saved views."""

from __future__ import annotations

import json

from mirnet.config import Settings
from mirnet.tracking import connect, track
from mirnet.tracking.notes import VIEW, with_section


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
