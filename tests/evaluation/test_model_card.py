"""The model card says what a person has to know before use."""

from __future__ import annotations

from mirnet.evaluation.model_card import NO_LICENCE, UNKNOWN_LICENCE, ModelCard, TrainedElsewhere
from mirnet.results import EvaluationResult
from tests import made_results

# MLflow stores the description of a version in 5000 characters; decision and links need a part
ROOM = 3600


def evaluation() -> EvaluationResult:
    own = made_results.score(15).model_copy(update={"extra": {"added_clipping": 0.0123}})
    other = {"method": "autocontrast", "psnr": 11.0, "gain": (9.0, 8.0, 10.0)}
    return EvaluationResult(
        model="model",
        digest="d48f.dir",
        split="eval15",
        methods={"mirnet": own, "autocontrast": made_results.score(15).model_copy(update=other)},
        scores_path="scores.parquet",
        seconds=1.0,
    )


def test_data_recipe_scores_limits_and_licence() -> None:
    trained = made_results.trained("run", "model")
    card = ModelCard(
        "mirnet",
        trained,
        recipe={
            "train.lr": 0.002,
            "train.loss": "{'l1': 1.0, 'ssim': 0.2}",
            "train.init_from": None,
            "train.teacher": "unknown key",
        },
        git_commit="abc123",
        scored=evaluation(),
        worst=("eval15/7.png", 12.31),
        data="LoL v1.",
    )
    text = card.text()
    headings = [line for line in text.splitlines() if line.startswith("## ")]
    assert headings == ["## Data", "## Recipe", "## Scores", "## Limits", "## Licence"]
    assert "LoL v1." in text and "`d48f.dir`" in text
    assert "loss l1 1.0, ssim 0.2" in text
    assert "learning rate 0.002" in text and "initial weights" not in text
    assert "commit `abc123`" in text
    assert "| **this model** | 20.00 (19.00 to 21.00) | 0.8000 (0.7000 to 0.9000) |  |" in text
    assert "+9.00 dB (+8.00 to +10.00)" in text
    assert "eval15/7.png, 12.31 dB" in text
    assert "clipped beyond the reference's: 1.23%" in text
    assert NO_LICENCE in text


def test_a_model_from_a_folder_says_what_is_not_known() -> None:
    folder = TrainedElsewhere("iat", 91_000, {"source": "published\n# x"})
    text = ModelCard("mirnet version 2", folder, scored=evaluation()).text()
    assert "`iat`, 91,000 parameters" in text
    assert "- Not trained here: the training data are not recorded" in text
    assert "- source: published\\n# x" in text and "best epoch" not in text
    assert UNKNOWN_LICENCE in text and "Apache" not in text, "nobody knows here"
    assert "| **this model** | 20.00" in text


def test_a_model_that_was_not_evaluated_has_a_card() -> None:
    text = ModelCard("base", made_results.trained("run", "model"), licence="CC0").text()
    assert "Not evaluated." in text and text.endswith("## Licence\nCC0\n")


def test_names_from_outside_stay_on_their_line() -> None:
    trained = made_results.trained("run", "model").model_copy(update={"digest": "a\n# b\x1b[31m"})
    text = ModelCard("x\ny", trained).text()
    assert "\n# b" not in text and "\x1b" not in text and "x\ny" not in text


def test_it_fits_the_description_of_a_version() -> None:
    methods = {f"method-{i}": made_results.score(15) for i in range(8)}
    methods |= evaluation().methods
    scored = evaluation().model_copy(update={"methods": methods})
    recipe = dict.fromkeys(("train.loss", "train.optimizer", "train.schedule"), "x" * 20)
    assert len(ModelCard("m", made_results.trained("r", "m"), recipe, scored=scored).text()) < ROOM
