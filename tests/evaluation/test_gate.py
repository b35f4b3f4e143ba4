from __future__ import annotations

import re
from collections.abc import Callable

import numpy as np
import pandas as pd
import pytest
from numpy.typing import NDArray

from mirnet.evaluation.baselines import BASELINES
from mirnet.evaluation.gate import Decision, Evidence, decide, gather_evidence
from mirnet.evaluation.scoring import score_pairs
from mirnet.evaluation.statistics import Gain
from mirnet.params import EvaluateParams, PromoteParams
from tests.evaluation.images import dark_pairs

Pixels = NDArray[np.uint8]
FAST = EvaluateParams(bootstrap_samples=300)
PARAMS = PromoteParams()


def score_table(
    candidate: NDArray[np.float64],
    champion: NDArray[np.float64],
    *,
    plain_gain: NDArray[np.float64] | None = None,
) -> pd.DataFrame:
    """Scores by aligned PSNR; the plain ones differ by ``plain_gain``, else as the aligned ones."""
    columns = {"width": 600, "height": 400, "seconds": 0.1, "added_clipping": 0.0}
    columns |= {"colour_cast": 1.0, "luma_ratio": 1.0}
    difference = candidate - champion if plain_gain is None else plain_gain
    methods = {
        "mirnet": (candidate, champion + difference),
        "champion": (champion, champion),
        "autocontrast": (candidate - 8, champion + difference - 8),
    }
    return pd.DataFrame(
        [
            {
                "pair_id": str(i),
                "method": name,
                "psnr": plain[i],
                "gt_mean_psnr": aligned[i],
                "low_luma": float(i),
                "low_colourfulness": float(i * 7 % 11),
                "low_noise": float(i * 5 % 13),
                **columns,
            }
            for name, (aligned, plain) in methods.items()
            for i in range(len(aligned))
        ]
    )


def judge(
    scores: pd.DataFrame,
    *,
    seed: int = 0,
    champion: str | None = "champion",
    params: PromoteParams = PARAMS,
) -> Decision:
    evaluate = EvaluateParams(bootstrap_samples=300, seed=seed)
    evidence = gather_evidence(
        scores, candidate="mirnet", champion=champion, params=params, evaluate=evaluate
    )
    return decide(evidence, params)


def failed(decision: Decision) -> set[str]:
    return {check.rule for check in decision.checks if not check.passed}


def test_same_weights_are_never_promoted_on_luck() -> None:
    rng = np.random.default_rng(0)
    for seed in range(100):
        psnr = rng.normal(20, 3, size=15)
        decision = judge(score_table(psnr, psnr), seed=seed)
        assert failed(decision) == {"champion"}


def test_equally_good_weights_are_rarely_promoted() -> None:
    """Another seed of the same recipe: no true difference, 1 dB of scatter an image."""
    rng = np.random.default_rng(1)
    promoted = 0
    for seed in range(200):
        champion = rng.normal(20, 3, size=15)
        candidate = champion + rng.normal(0, 1, size=15)
        promoted += judge(score_table(candidate, champion), seed=seed).promote
    assert promoted / 200 <= 0.06


def test_a_planted_better_model_is_promoted() -> None:
    rng = np.random.default_rng(2)
    for seed in range(30):
        champion = rng.normal(20, 3, size=15)
        candidate = champion + rng.normal(1.5, 1, size=15)
        decision = judge(score_table(candidate, champion), seed=seed)
        assert decision.outcome == "promote"
        assert any("surely better than the champion" in reason for reason in decision.reasons)


def test_aligned_quality_decides_where_plain_scores_are_drowned_by_brightness() -> None:
    """Half a dB better; brightness adds 3 dB of scatter to plain PSNR, and says nothing."""
    rng = np.random.default_rng(3)
    promoted = plain = 0
    for seed in range(60):
        champion = rng.normal(20, 3, size=50)
        candidate = champion + rng.normal(0.5, 1, size=50)
        scores = score_table(candidate, champion, plain_gain=rng.normal(0.5, 3, size=50))
        promoted += judge(scores, seed=seed).promote
        plain += judge(scores, seed=seed, params=PromoteParams(criterion="plain")).promote
    assert promoted >= 50 and plain <= 25


def test_plain_psnr_guards_the_aligned_criterion() -> None:
    rng = np.random.default_rng(4)
    champion = rng.normal(20, 3, size=50)
    candidate = champion + rng.normal(1, 0.5, size=50)
    scores = score_table(candidate, champion, plain_gain=rng.normal(-2, 1, size=50))
    decision = judge(scores)
    assert failed(decision) == {"champion-plain"}
    assert "surely worse than the champion in plain PSNR: gain -" in decision.reasons[0]
    assert judge(scores, params=PromoteParams(max_plain_loss_db=None)).promote
    assert judge(scores, params=PromoteParams(max_plain_loss_db=3)).promote


@pytest.mark.parametrize(
    ("column", "name"),
    [
        ("low_luma", "darkest"),
        ("low_colourfulness", "least colourful"),
        ("low_noise", "least noisy"),
    ],
)
def test_much_worse_on_one_slice_is_refused_with_its_name(column: str, name: str) -> None:
    rng = np.random.default_rng(5)
    champion = rng.normal(20, 3, size=30)
    rank = score_table(champion, champion).head(30)[column].rank(method="first")
    gain = np.where(rank <= 10, -3, 4) + rng.normal(0, 0.5, size=30)
    decision = judge(score_table(champion + gain, champion))
    assert failed(decision) == {"slices"}
    assert f"surely loses more than 1 dB on the {name} third: -" in decision.reasons[0]
    off = PromoteParams(max_slice_loss_db=None)
    assert judge(score_table(champion + gain, champion), params=off).promote


def test_the_gate_says_how_many_images_would_tell() -> None:
    rng = np.random.default_rng(6)
    champion = rng.normal(20, 3, size=400)
    gain = rng.normal(0, 1, size=400)
    scores = score_table(champion + gain, champion, plain_gain=3 * gain)
    reason = next(c.reason for c in judge(scores).checks if c.rule == "champion")
    told, plain = map(int, re.findall(r"(\d+) images tell 0.3 dB, by plain PSNR (\d+)", reason)[0])
    # (2.80 / 0.3)² = 87, and nine times that
    assert 75 <= told <= 100
    assert plain == pytest.approx(9 * told, rel=0.02)


def test_scores_of_an_older_evaluation_have_fewer_slices() -> None:
    champion = np.arange(15) / 10 + 20
    scores = score_table(champion + 1, champion).drop(columns=["low_noise", "low_colourfulness"])
    assert judge(scores).promote


def test_known_same_weights_keep_the_champion() -> None:
    gain = Gain(5, 4, 6, 15)
    decision = decide(Evidence(gain, same_weights=True), PARAMS)
    assert decision.outcome == "keep"
    assert decision.reasons == ("these weights are the champion already",)


def test_without_a_champion_autocontrast_is_the_bar() -> None:
    psnr = np.full(15, 20.0) + np.arange(15) / 10
    assert judge(score_table(psnr, psnr), champion=None).promote
    scores = score_table(psnr, psnr)
    scores.loc[scores["method"] == "autocontrast", "psnr"] = psnr - 0.4
    assert failed(judge(scores, champion=None)) == {"baseline"}


def test_few_images_decide_nothing() -> None:
    psnr = np.array([20.0, 21.0, 22.0, 23.0])
    decision = judge(score_table(psnr, psnr), champion=None)
    assert failed(decision) == {"images"}
    assert decision.reasons == ("4 evaluation images, at least 5 asked for",)


@pytest.mark.parametrize(
    ("change", "rule"),
    [
        ({"well_lit_psnr": 5.0}, "well-lit"),
        ({"harm_share": 0.25}, "harm"),
        ({"seconds_per_megapixel": 3.0}, "speed"),
        ({"mib_per_megapixel": 2000.0}, "memory"),
        ({"added_clipping": 0.3}, "clipping"),
        ({"colour_cast": 20.0}, "colour-cast"),
        ({"luma_ratio": 0.3}, "darkening"),
    ],
)
def test_each_rule_refuses_by_its_name(change: dict[str, float], rule: str) -> None:
    params = PromoteParams(
        max_seconds_per_megapixel=2, max_mib_per_megapixel=1000, max_harm_share=0.2
    )
    good = Evidence(
        Gain(8, 7, 9, 15),
        Gain(1, 0.5, 2, 15),
        added_clipping=0.0,
        colour_cast=1.0,
        luma_ratio=1.0,
        well_lit_psnr=20.0,
        harm_share=0.0,
        seconds_per_megapixel=1.0,
        mib_per_megapixel=500.0,
    )
    assert decide(good, params).promote
    bad = Evidence(**(vars(good) | change))
    decision = decide(bad, params)
    assert decision.outcome == "refuse"
    assert failed(decision) == {rule}


def clipping(high: Pixels) -> Pixels:
    return np.clip(high.astype(float) * 1.5 + 40, 0, 255).astype(np.uint8)


def colour_cast(high: Pixels) -> Pixels:
    return np.clip(high.astype(float) * [1.25, 1.0, 0.7], 0, 255).astype(np.uint8)


def darkening(high: Pixels) -> Pixels:
    return (high * 0.5).astype(np.uint8)


@pytest.mark.parametrize(
    ("harm", "rule"),
    [(clipping, "clipping"), (colour_cast, "colour-cast"), (darkening, "darkening")],
)
def test_a_harmful_model_that_beats_autocontrast_is_refused_for_its_harm(
    harm: Callable[[Pixels], Pixels], rule: str
) -> None:
    pairs = dark_pairs(6)
    harmed = iter([harm(high) for _, _, high in pairs])
    methods = {"autocontrast": BASELINES["autocontrast"], "mirnet": lambda _: next(harmed)}
    scores, _ = score_pairs(pairs, methods, FAST)
    assert failed(judge(scores, champion=None)) == {rule}


def test_a_faithful_model_passes_every_rule() -> None:
    pairs = dark_pairs(6)
    faithful = iter([np.clip(high + 2.0, 0, 255).astype(np.uint8) for _, _, high in pairs])
    methods = {"autocontrast": BASELINES["autocontrast"], "mirnet": lambda _: next(faithful)}
    scores, _ = score_pairs(pairs, methods, FAST)
    assert failed(judge(scores, champion=None)) == set()
