"""The promotion gate: a pure function from evidence to a typed decision with reasons.

The rule for a changed data version: candidate and champion are always scored on the evaluation
pairs of the candidate's data version, in the same run. Scores that the champion got on another
version are never compared. Pairs that the champion was trained on in an older version favour the
champion.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import Literal

import pandas as pd

from mirnet.evaluation.slices import SLICES, thirds
from mirnet.evaluation.statistics import (
    Gain,
    images_needed,
    paired_differences,
    paired_gain,
    student_gain,
)
from mirnet.params import EvaluateParams, PromoteParams

CRITERIA = {"aligned": "gt_mean_psnr", "plain": "psnr"}
"""Values of ``promote.criterion``: columns of scores."""
_FEWEST_PER_SLICE = 5
_TOLD_APART_DB = 0.3


@dataclass(frozen=True)
class Evidence:
    """The input of the gate. ``None``: not measured, or there is no champion.

    Attributes:
        gain_over_champion: in the criterion.
        plain_over_champion: of plain PSNR.
        slices: gain over the champion in the criterion on thirds of the images, by name.
        images_to_tell: images that tell 0.3 dB in the criterion and in plain PSNR.
    """

    gain_over_baseline: Gain
    gain_over_champion: Gain | None = None
    plain_over_champion: Gain | None = None
    slices: Mapping[str, Gain] = field(default_factory=dict)
    images_to_tell: tuple[int, int] | None = None
    same_weights: bool = False
    added_clipping: float | None = None
    colour_cast: float | None = None
    luma_ratio: float | None = None
    well_lit_psnr: float | None = None
    harm_share: float | None = None
    seconds_per_megapixel: float | None = None
    mib_per_megapixel: float | None = None


@dataclass(frozen=True)
class GateCheck:
    """One rule, whether the candidate passed it, and a sentence with the figures."""

    rule: str
    passed: bool
    reason: str


@dataclass(frozen=True)
class Decision:
    """``keep``: the candidate is already the champion; nothing to promote or refuse."""

    outcome: Literal["promote", "keep", "refuse"]
    checks: tuple[GateCheck, ...]

    @property
    def promote(self) -> bool:
        """Whether the alias may move."""
        return self.outcome == "promote"

    @property
    def reasons(self) -> tuple[str, ...]:
        """The failed rules; if none failed, the passed ones."""
        failed = tuple(check.reason for check in self.checks if not check.passed)
        return failed or tuple(check.reason for check in self.checks)


def gather_evidence(
    scores: pd.DataFrame,
    *,
    candidate: str,
    champion: str | None,
    params: PromoteParams,
    evaluate: EvaluateParams,
    same_weights: bool = False,
    well_lit_psnr: float | None = None,
    harm_share: float | None = None,
    mib_per_megapixel: float | None = None,
) -> Evidence:
    """Paired gains and mean defects of the candidate from a table of scores.

    Args:
        scores: one row per image and method; holds ``candidate``, ``params.baseline`` and, if there
            is one, ``champion``.

    Raises:
        ValueError: a method is missing, or was scored on different images.
    """

    def gain(against: str, metric: str = "psnr") -> Gain:
        return paired_gain(
            scores,
            candidate,
            against,
            num_samples=evaluate.bootstrap_samples,
            seed=evaluate.seed,
            metric=metric,
        )

    rows = scores[scores["method"] == candidate]
    megapixels = float((rows["width"] * rows["height"]).sum()) / 1e6
    evidence = Evidence(
        gain_over_baseline=gain(params.baseline),
        same_weights=same_weights,
        added_clipping=float(rows["added_clipping"].mean()),
        colour_cast=float(rows["colour_cast"].mean()),
        luma_ratio=float(rows["luma_ratio"].mean()),
        well_lit_psnr=well_lit_psnr,
        harm_share=harm_share,
        seconds_per_megapixel=float(rows["seconds"].sum()) / megapixels,
        mib_per_megapixel=mib_per_megapixel,
    )
    if champion is None:
        return evidence
    criterion = CRITERIA[params.criterion]
    return replace(
        evidence,
        gain_over_champion=gain(champion, criterion),
        plain_over_champion=gain(champion),
        slices=_slices(scores, candidate, champion, criterion),
        images_to_tell=_images_to_tell(scores, candidate, champion, criterion),
    )


def _slices(scores: pd.DataFrame, candidate: str, champion: str, metric: str) -> dict[str, Gain]:
    """Gains on thirds of at least five images, with Student's interval: few values each."""
    differences = paired_differences(scores, candidate, champion, metric=metric)
    images = scores[scores["method"] == candidate].set_index("pair_id").loc[differences.index]
    return {
        name: student_gain(differences[chosen].to_numpy(dtype="float64"))
        for column, names in SLICES.items()
        if column in images  # evaluations of 0.1 have the brightness only
        for name, chosen in thirds(images[column], names, fewest=_FEWEST_PER_SLICE).items()
    }


def _images_to_tell(
    scores: pd.DataFrame, candidate: str, champion: str, metric: str
) -> tuple[int, int] | None:
    """For the criterion and for plain PSNR; none without a spread."""
    found = [
        paired_differences(scores, candidate, champion, metric=column).to_numpy(dtype="float64")
        for column in (metric, CRITERIA["plain"])
    ]
    if found[0].size < 2 or any(values.std() < 1e-9 for values in found):
        return None
    first, second = (images_needed(values, gain=_TOLD_APART_DB) for values in found)
    return first, second


def decide(evidence: Evidence, params: PromoteParams) -> Decision:
    """Promote only if every rule passes; otherwise list the failed ones with their figures."""
    if evidence.same_weights:
        check = GateCheck("same-weights", False, "these weights are the champion already")
        return Decision("keep", (check,))
    checks = (
        _enough_images(evidence, params),
        _beats_baseline(evidence, params),
        _beats_champion(evidence, params),
        _keeps_plain(evidence, params),
        _keeps_slices(evidence, params),
        _at_most("clipping", evidence.added_clipping, params.max_added_clipping, "{:.1%}",
                 "of the pixels clipped beyond the reference's"),
        _at_most("colour-cast", evidence.colour_cast, params.max_colour_cast, "{:.1f}",
                 "mean colour cast in CIE a*b*"),
        _at_least("darkening", evidence.luma_ratio, params.min_luma_ratio, "{:.2f}",
                  "of the reference's brightness"),
        _at_least("well-lit", evidence.well_lit_psnr, params.min_well_lit_psnr_db, "{:.1f} dB",
                  "PSNR that well-lit images keep"),
        _at_most("harm", evidence.harm_share, params.max_harm_share, "{:.1%}",
                 "of the dark images would be harmed"),
        _at_most("speed", evidence.seconds_per_megapixel, params.max_seconds_per_megapixel,
                 "{:.2f} s", "per megapixel"),
        _at_most("memory", evidence.mib_per_megapixel, params.max_mib_per_megapixel,
                 "{:.0f} MiB", "per megapixel"),
    )  # fmt: skip
    applied = tuple(check for check in checks if check is not None)
    promote = all(check.passed for check in applied)
    return Decision("promote" if promote else "refuse", applied)


def _enough_images(evidence: Evidence, params: PromoteParams) -> GateCheck:
    number = evidence.gain_over_baseline.num_images
    return GateCheck(
        "images",
        number >= params.min_images,
        f"{number} evaluation images, at least {params.min_images} asked for",
    )


def _beats_baseline(evidence: Evidence, params: PromoteParams) -> GateCheck:
    gain = evidence.gain_over_baseline
    passed = gain.low > params.min_gain_db
    words = "beats" if passed else "does not surely beat"
    return GateCheck(
        "baseline",
        passed,
        f"{words} {params.baseline} by more than {params.min_gain_db:g} dB: gain {gain}",
    )


def _beats_champion(evidence: Evidence, params: PromoteParams) -> GateCheck:
    """Strict, so that an equal candidate is never promoted."""
    gain = evidence.gain_over_champion
    if gain is None:
        return GateCheck("champion", True, "there is no champion yet")
    passed = gain.low > -params.max_loss_db
    margin = f" (a loss of {params.max_loss_db:g} dB is allowed)" if params.max_loss_db else ""
    words = "is surely better than" if passed else "is not surely better than"
    kind = "of brightness-aligned PSNR " if params.criterion == "aligned" else ""
    return GateCheck(
        "champion",
        passed,
        f"{words} the champion{margin}: gain {kind}{gain}{_power(evidence, params)}",
    )


def _power(evidence: Evidence, params: PromoteParams) -> str:
    if evidence.images_to_tell is None:
        return ""
    criterion, plain = evidence.images_to_tell
    text = f"; {criterion} images tell {_TOLD_APART_DB:g} dB"
    return text + (f", by plain PSNR {plain}" if params.criterion == "aligned" else "")


def _keeps_plain(evidence: Evidence, params: PromoteParams) -> GateCheck | None:
    """The guard of the aligned criterion, which does not see a wrong brightness."""
    gain, limit = evidence.plain_over_champion, params.max_plain_loss_db
    if gain is None or limit is None or params.criterion == "plain":
        return None
    passed = gain.high >= -limit
    words = "is not surely worse than" if passed else "is surely worse than"
    margin = f" by more than {limit:g} dB" if limit else ""
    return GateCheck(
        "champion-plain", passed, f"{words} the champion{margin} in plain PSNR: gain {gain}"
    )


def _keeps_slices(evidence: Evidence, params: PromoteParams) -> GateCheck | None:
    """Better on average and much worse on one kind of images is no improvement."""
    limit = params.max_slice_loss_db
    if not evidence.slices or limit is None:
        return None
    lost = {name: gain for name, gain in evidence.slices.items() if gain.high < -limit}
    if not lost:
        worst = min(evidence.slices, key=lambda name: evidence.slices[name].mean)
        text = f"lowest gain on the {worst} third: {evidence.slices[worst]}"
        return GateCheck("slices", True, f"surely loses more than {limit:g} dB on no third; {text}")
    named = "; ".join(f"{name} third: {gain}" for name, gain in lost.items())
    return GateCheck("slices", False, f"surely loses more than {limit:g} dB on the {named}")


def _at_most(
    rule: str, value: float | None, limit: float | None, form: str, what: str
) -> GateCheck | None:
    if value is None or limit is None:
        return None
    text = f"{form.format(value)} {what}, at most {form.format(limit)} allowed"
    return GateCheck(rule, value <= limit, text)


def _at_least(
    rule: str, value: float | None, limit: float | None, form: str, what: str
) -> GateCheck | None:
    if value is None or limit is None:
        return None
    text = f"{form.format(value)} {what}, at least {form.format(limit)} asked for"
    return GateCheck(rule, value >= limit, text)
