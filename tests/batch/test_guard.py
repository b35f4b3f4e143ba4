"""What the model would have spoilt, and what is bright enough, goes out as it came."""

from __future__ import annotations

import io
import json
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import numpy as np
import PIL.Image
import pytest

from mirnet.batch.digests import Digests
from mirnet.batch.manifest import Row, load_rows
from mirnet.cli.show import enhancement_sentence, enhancement_table
from mirnet.config import Settings
from mirnet.images import Image, decode
from mirnet.params import EnhanceParams
from mirnet.results import EnhanceResult
from mirnet.storage.places import open_store
from tests.batch.samples import darken, double, enhance_batch, fill, picture


def spoil_the_wide(image: Image) -> Image:
    """Does well on square images only."""
    return darken(image) if image.pixels.shape[1] > image.pixels.shape[0] else double(image)


def wide(seed: int, *, format: str = "PNG") -> bytes:
    pixels = np.random.default_rng(seed).integers(10, 30, (32, 48, 3), dtype=np.uint8)
    buffer = io.BytesIO()
    PIL.Image.fromarray(pixels).save(buffer, format=format)
    return buffer.getvalue()


def run(
    source: str,
    target: str,
    settings: Settings,
    model: Callable[[Image], Image] = spoil_the_wide,
    **params: Any,
) -> EnhanceResult:
    return enhance_batch(source, target, settings, enhance=model, **params)


def rows_of(result: EnhanceResult, settings: Settings) -> dict[str, Row]:
    folder, _, name = str(result.manifest_uri).rpartition("/")
    rows = load_rows(open_store(folder, settings).get(name).data, "parquet")
    return {row.input_key: row for row in rows}


def test_a_spoilt_picture_goes_out_as_it_came(places: tuple[str, str], settings: Settings) -> None:
    source, target = places
    spoilt = {"b.png": wide(1), "c.jpg": wide(2, format="JPEG")}
    fill(source, {"a.png": picture(1)} | spoilt)
    result = run(source, target, settings)
    assert (result.planned, result.enhanced, result.passed_through) == (3, 1, 2)
    assert result.harm == {"darker": 2}
    rows = rows_of(result, settings)
    for key, data in spoilt.items():
        assert open_store(target, settings).get(key).data == data
        assert (rows[key].status, rows[key].reason) == ("passed_through", "harm: darker")
        assert rows[key].luminance_after == rows[key].luminance_before
    assert rows["a.png"].reason is None
    assert {(fate.input, fate.reason) for fate in result.worst[:2]} == {
        ("b.png", "harm: darker"),
        ("c.jpg", "harm: darker"),
    }
    summary = json.loads(
        open_store(str(result.summary_uri).rpartition("/")[0], settings).get("summary.json").data
    )
    assert summary["reasons"] == {"harm: darker": 2}
    assert summary["harm"] == {"darker": 2}
    assert summary["counts"]["passed_through"] == 2


def test_it_is_done_and_not_tried_again(places: tuple[str, str], settings: Settings) -> None:
    source, target = places
    fill(source, {"b.png": wide(1)})
    run(source, target, settings)
    again = run(source, target, settings, lambda _: pytest.fail("tried again"))
    assert (again.planned, again.skipped) == (1, 1)


def test_other_limits_have_it_done_again(places: tuple[str, str], settings: Settings) -> None:
    source, target = places
    fill(source, {"b.png": wide(1)})
    run(source, target, settings)
    result = run(source, target, settings, max_darkening=None, max_dimmed_share=None)
    assert (result.enhanced, result.harm) == (1, {})
    out = decode(open_store(target, settings).get("b.png").data, name="b")
    assert np.array_equal(out.pixels, decode(wide(1), name="b").pixels // 2)


@pytest.mark.parametrize(
    "change",
    [
        {"max_darkening": 0.1},
        {"max_dimmed_share": 0.1},
        {"max_order_loss": None},
        {"max_tint": 0.2},
        {"max_added_clipping": 0.1},
        {"max_added_noise": None},
        {"pass_luminance": None},
    ],
)
def test_each_limit_decides_over_what_passed_through(change: dict[str, float | None]) -> None:
    usual, changed = Digests.of(EnhanceParams()), Digests.of(EnhanceParams(**change))
    assert not changed.hold("passed_through", usual.passed)
    assert changed.hold("enhanced", usual.output)
    # how a night is announced does not
    told = EnhanceParams(max_harm_share=0.9, harm_min_images=1)
    assert Digests.of(told) == Digests.of(EnhanceParams())


def test_bright_pictures_pass_by_default_and_backlit_ones_do_not(
    places: tuple[str, str], settings: Settings
) -> None:
    source, target = places
    bright = np.full((64, 64, 3), 180, dtype=np.uint8)
    backlit = bright.copy()
    backlit[40:, 20:44] = 8  # 14 % of the image, under a bright sky
    objects = {}
    for key, pixels in {"bright.png": bright, "backlit.png": backlit}.items():
        buffer = io.BytesIO()
        PIL.Image.fromarray(pixels).save(buffer, format="PNG")
        objects[key] = buffer.getvalue()
    fill(source, objects)

    seen = []

    def brighten(image: Image) -> Image:
        seen.append(image.pixels.mean())
        table = np.minimum(np.arange(256) * 1.1 + 30 * (np.arange(256) < 100), 255)
        return replace(image, pixels=table.astype(np.uint8)[image.pixels])

    result = run(source, target, settings, brighten)
    rows = rows_of(result, settings)
    assert (rows["bright.png"].status, rows["bright.png"].reason) == ("passed_through", "bright")
    assert rows["backlit.png"].status == "enhanced"
    assert len(seen) == 1, "the network is not asked about what is bright enough"
    assert rows["bright.png"].shadows == pytest.approx(180 / 255, abs=1e-4)
    assert (rows["backlit.png"].shadows or 1) < 0.1
    assert result.harm == {}


def test_a_night_of_harm_is_told(places: tuple[str, str], settings: Settings) -> None:
    source, target = places
    fill(source, {f"{n}.png": wide(n) for n in range(3)} | {"a.png": picture(1)})
    assert not run(source, target, settings).harmful, "fewer than harm_min_images"
    fill(source, {f"{n}.png": wide(n) for n in range(10, 13)} | {"b.png": picture(2)})
    assert run(source, target, settings, harm_min_images=4).harmful
    fill(source, {f"{n}.png": wide(n) for n in range(20, 23)} | {"c.png": picture(3)})
    assert not run(source, target, settings, harm_min_images=4, max_harm_share=0.75).harmful


def test_the_page_shows_what_was_rejected(places: tuple[str, str], settings: Settings) -> None:
    source, target = places
    fill(source, {"a.png": picture(1), "b.png": wide(1), "c.png": wide(2)})
    result = run(source, target, settings, contact_images=1)
    folder, _, name = str(result.contact_uri).rpartition("/")
    store = open_store(folder, settings)
    page = store.get(name).data.decode()
    section = (
        page.partition("Left unchanged by the safety checks")[2]
        .partition("</h2>")[2]
        .partition("<h2>")[0]
    )
    assert section.count("<img") == 2, "the input, and what the model made of it"
    assert "harm: darker" in section
    listed = page.rpartition("Left unchanged by the safety checks")[2]
    assert "b.png" in listed and "c.png" in listed
    kept = [info.key for info in store.list() if "rejected/" in info.key]
    assert len(kept) == 1
    rejected = decode(store.get(kept[0]).data, name="rejected")
    low = decode(wide(1), name="low")
    assert rejected.pixels.mean() == pytest.approx(low.pixels.mean() / 2, rel=0.1)


def test_one_image_in_another_format(places: tuple[str, str], settings: Settings) -> None:
    source, target = places
    fill(source, {"b.png": wide(1)})
    result = run(f"{source}/b.png", f"{target}/out.tif", settings)
    assert (result.passed_through, result.harm) == (1, {"darker": 1})
    out = decode(open_store(target, settings).get("out.tif").data, name="out")
    assert out.format == "TIFF"
    assert np.array_equal(out.pixels, decode(wide(1), name="b").pixels)


def test_one_image_is_said_to_be_unchanged_and_why(
    places: tuple[str, str], settings: Settings
) -> None:
    source, target = places
    fill(source, {"b.png": wide(1)})
    result = run(f"{source}/b.png", f"{target}/out.png", settings)
    assert result.picture is not None
    said = enhancement_sentence(result.picture, result)
    why = "unchanged (harm: darker: the model would have made it darker)"
    assert f"out.png, {why}, " in said
    assert open_store(target, settings).get("out.png").data == wide(1)


def test_the_terminal_says_why(places: tuple[str, str], settings: Settings) -> None:
    source, target = places
    fill(source, {"a.png": picture(1), "b.png": wide(1)})
    table = enhancement_table(run(source, target, settings))
    cells = dict(zip(*(column.cells for column in table.columns), strict=True))
    assert (cells["passed through"], cells["  harm: darker"]) == ("1", "1")
