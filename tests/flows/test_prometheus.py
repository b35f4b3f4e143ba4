"""What Prometheus is told of the last runs, read back by Prometheus' own parser."""

from __future__ import annotations

from pathlib import Path

from prometheus_client.parser import text_string_to_metric_families

from flows.prometheus import Champion, of_look, of_reports
from mirnet.doctor import DoctorCheck
from mirnet.results import Cost, EnhanceResult, EvaluationResult, MethodScore
from mirnet.telemetry import render


def samples(text: str) -> dict[tuple[str, str], float]:
    """(metric, its labels but the help) -> value."""
    return {
        (sample.name, ",".join(sample.labels.values())): sample.value
        for family in text_string_to_metric_families(text)
        for sample in family.samples
    }


def test_a_night_and_an_evaluation(tmp_path: Path) -> None:
    cost = Cost(cpu_hours=2, gpu_hours=0.5, price=3.25, currency="EUR", energy_kwh=0.195)
    EnhanceResult(
        run_id="n", source="a", target="b", model="mirnet", planned=9, enhanced=7, quarantined=2,
        seconds=60, cost=cost,
    ).save(tmp_path / "enhance.json")  # fmt: skip
    score = MethodScore(
        method="mirnet", num_images=3, psnr=18.5, psnr_interval=(17, 19), ssim=0.7,
        ssim_interval=(0.6, 0.8),
    )  # fmt: skip
    EvaluationResult(
        model="m", digest="d", split="eval15", methods={"mirnet": score}, scores_path="s", seconds=5
    ).save(tmp_path / "evaluate.json")
    found = samples(render(of_reports(tmp_path)))
    assert found["mirnet_images", "enhanced"] == 7
    assert found["mirnet_images", "quarantined"] == 2
    assert found["mirnet_psnr_db", "mirnet"] == 18.5
    assert found["mirnet_price", "EUR,enhance"] == 3.25
    assert found["mirnet_energy_kwh", "enhance"] == 0.195
    assert found["mirnet_stage_seconds", "evaluate"] == 5
    assert ("mirnet_cpu_hours", "evaluate") not in found


def test_no_report_and_a_report_of_another_version_say_nothing(tmp_path: Path) -> None:
    (tmp_path / "train.json").write_text('{"other": 1}')
    assert of_reports(tmp_path) == []


def test_a_look_has_every_check_and_the_champion() -> None:
    checks = (
        DoctorCheck(name="disk", outcome="failed", found="full"),
        DoctorCheck(name="ray", outcome="skipped", found="none"),
    )
    champion = Champion(version="7", age_s=3600, data_digest=None)
    found = samples(render(of_look(checks, champion)))
    assert found["mirnet_check", "disk"] == 2
    assert found["mirnet_check", "ray"] == 0
    assert found["mirnet_champion_age_seconds", "7"] == 3600
