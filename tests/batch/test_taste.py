"""A person's choices in a batch: another choice is another configuration, and none is harm."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from mirnet.batch.digests import Digests
from mirnet.batch.ledger import Ledger
from mirnet.batch.manifest import Row
from mirnet.batch.provenance import from_metadata
from mirnet.batch.run import run_batch
from mirnet.config import Settings
from mirnet.images import decode
from mirnet.images.stats import measure
from mirnet.inference import Enhancer
from mirnet.models import build
from mirnet.params import EnhanceParams
from mirnet.results import EnhanceResult
from mirnet.storage.places import open_store
from tests.batch.samples import MODEL, UNGUARDED, darken, enhance_batch, fill, picture

DARK = {f"{n}.png": picture(n) for n in range(3)}


@pytest.fixture
def there(tmp_path: Path) -> tuple[str, str]:
    fill(str(tmp_path / "in"), DARK | {"bright.png": picture(5, level=256)})
    return str(tmp_path / "in"), str(tmp_path / "out")


def enhance(there: tuple[str, str], settings: Settings, **params: Any) -> EnhanceResult:
    return enhance_batch(*there, settings, contact_images=0, **params)


def rows(there: tuple[str, str], settings: Settings) -> dict[str, Row]:
    found = Ledger.of_target(open_store(there[1], settings)).past_runs().rows()
    return {row.input_key: row for row in found}


def test_another_choice_is_another_configuration(
    there: tuple[str, str], settings: Settings
) -> None:
    assert enhance(there, settings).enhanced == 3
    for choice in ({"exposure": 0.4}, {"exposure": "+1"}, {"denoise": 0.5}, {"strength": 1.25}):
        again = enhance(there, settings, **choice)
        assert again.enhanced == 3, choice
        assert enhance(there, settings, **choice).skipped == 4
    same = enhance(there, settings, strength=1.25, exposure="auto", denoise=1)
    assert same.skipped == 4


def test_one_exposure_has_one_digest_and_the_default_that_of_before() -> None:
    plain = Digests.of(EnhanceParams())
    assert Digests.of(EnhanceParams(exposure="+0 stops", denoise=1)) == plain
    assert plain.output == "849d503d1bddcc74"
    spellings = ("+0.5", "0.5 stops", "+0.50 stop")
    assert len({Digests.of(EnhanceParams(exposure=one)).output for one in spellings}) == 1
    other = Digests.of(EnhanceParams(exposure=0.5, denoise=0.5))
    assert other.output != plain.output and other.passed == plain.passed


def test_choices_are_in_the_rows_and_in_the_record_of_an_output(
    there: tuple[str, str], settings: Settings
) -> None:
    enhance(there, settings, exposure=0.4, denoise=0.5, strength=0.9)
    row = rows(there, settings)["1.png"]
    assert (row.strength, row.exposure, row.denoise) == (0.9, "0.4", 0.5)
    passed = rows(there, settings)["bright.png"]
    assert (passed.strength, passed.exposure, passed.denoise) == (None, None, None)
    head = open_store(there[1], settings).head("1.png")
    origin = from_metadata(head.metadata) if head else None
    assert origin and origin.row.exposure == "0.4"
    enhance(there, settings, exposure="-1")
    assert rows(there, settings)["1.png"].exposure == "-1.0 stops"


def test_an_output_that_a_person_wants_dark_is_no_harm(
    there: tuple[str, str], settings: Settings
) -> None:
    result = enhance(there, settings, exposure="-3")
    assert (result.enhanced, result.harm) == (3, {})
    made = decode(open_store(there[1], settings).get("1.png").data, name="1").pixels
    low = decode(DARK["1.png"], name="1").pixels
    assert measure(made).luminance < measure(low).luminance
    assert rows(there, settings)["1.png"].luminance_after == pytest.approx(
        measure(made).luminance, abs=1e-4
    )


def test_a_spoilt_output_is_found_however_bright_a_person_wants_it(
    there: tuple[str, str], settings: Settings
) -> None:
    result = enhance(there, settings, enhance=darken, exposure="+3", strength=1.5, denoise=0.5)
    assert (result.enhanced, result.harm) == (0, {"darker": 3})
    for key, data in DARK.items():
        assert open_store(there[1], settings).get(key).data == data


def test_a_target_is_met_by_each_image(there: tuple[str, str], settings: Settings) -> None:
    enhance(there, settings, exposure=0.4)
    made = rows(there, settings)
    assert [made[key].luminance_after for key in DARK] == pytest.approx([0.4] * 3, abs=0.01)


def test_a_batch_and_the_api_make_the_same(there: tuple[str, str], settings: Settings) -> None:
    torch.manual_seed(0)
    enhancer = Enhancer(build("zerodce").eval(), precision="float32", compile=False)
    params = EnhanceParams(
        contact_images=0, strength=1.2, exposure="+0.5", denoise=0.5, **UNGUARDED
    )
    result = run_batch(*there, enhance=enhancer, model=MODEL, params=params, settings=settings)
    assert result.enhanced == 4
    for key, data in DARK.items():
        made = decode(open_store(there[1], settings).get(key).data, name=key).pixels
        image = decode(data, name=key)
        expected = enhancer.enhance_image(image, 1.2, exposure="+0.5", denoise=0.5).pixels
        assert np.array_equal(made, expected)
        assert not np.array_equal(made, enhancer.enhance_image(image).pixels)
