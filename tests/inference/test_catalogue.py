"""What networks cost and cannot do, as ``mirnet models`` says it."""

from __future__ import annotations

import json
from dataclasses import replace

import pytest
from typer.testing import CliRunner

from mirnet.cli import app
from mirnet.inference.catalogue import limits, network_facts
from mirnet.models.registry import by_name, list_architectures


def test_every_network_is_listed_with_its_costs() -> None:
    facts = {each.name: each for each in network_facts()}
    assert set(facts) == set(list_architectures())
    # by hand: 3x3 convolutions 3 to 32, four of 32 or 64 to 32, 64 to 24, at 400x600
    channels = 3 * 32 + 3 * 32 * 32 + 2 * 64 * 32 + 64 * 24
    assert facts["zerodce"].gmac == pytest.approx(9 * channels * 400 * 600 / 1e9)
    assert facts["mobileie"].parameters == 4075, "folded"
    assert facts["zerodcepp-s"].gmac < facts["zerodcepp"].gmac / 100
    assert all(each.gmac > 0 and each.megapixels_per_s is None for each in facts.values())


def test_limits_are_those_of_the_entry() -> None:
    entry = by_name("mirnet-xs")
    sizes = entry.variants["mirnet-xs"]
    assert limits(entry, sizes) == ("tiles with estimated averages",)
    assert limits(replace(entry, averages_per_pass=lambda _: (1,)), sizes) == ()
    restormer = by_name("restormer")
    assert [bool(limits(restormer, size)) for size in restormer.variants.values()] == [True, False]
    bound = replace(entry, tiled=False, bf16=False, batch_statistics=True, exports=frozenset())
    assert limits(bound, sizes) == (
        "no tiles: images within the memory limit only",
        "float32 only",
        "no train.accumulate",
        "no export to pt2, onnx, int8",
    )
    assert "takes packed-raw" in limits(replace(entry, domain="packed-raw", channels=4), sizes)[0]


def test_the_command_lists_them(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("COLUMNS", "140")
    shown = CliRunner().invoke(app, ["models"])
    assert shown.exit_code == 0 and "Restormer: Zamir" in shown.stdout
    assert all(name in shown.stdout for name in list_architectures())


def test_measured_here(monkeypatch: pytest.MonkeyPatch) -> None:
    smallest = by_name("sci")
    monkeypatch.setattr("mirnet.inference.catalogue.architectures", lambda: (smallest,))
    shown = CliRunner().invoke(app, ["models", "--measure", "--json"])
    (facts,) = json.loads(shown.stdout)
    assert facts["name"] == "sci" and facts["megapixels_per_s"] > 0
