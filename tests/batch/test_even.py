"""Images of one scene that follow each other come out alike, whoever enhances them and when."""

from __future__ import annotations

import contextlib
import json
import os
import random
import signal
import time
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from mirnet.batch import image_work
from mirnet.batch.child_work import view_in
from mirnet.batch.digests import Digests
from mirnet.batch.ledger import Ledger
from mirnet.batch.manifest import Row
from mirnet.batch.messages import Message
from mirnet.batch.provenance import from_metadata
from mirnet.batch.run import preview, run_batch
from mirnet.batch.seen import SeenImages
from mirnet.config import Settings
from mirnet.images import Seen
from mirnet.inference import Enhancer
from mirnet.models import build
from mirnet.params import EnhanceParams
from mirnet.results import EnhanceResult
from mirnet.storage.places import open_store
from mirnet.storage.store import Blob, ObjectMissing, TransientStorageError
from tests.batch.child import start
from tests.batch.killers import Killer
from tests.batch.samples import MODEL, UNGUARDED, darken, enhance_batch, fill, picture
from tests.batch.sequences import EXPOSURES, lift, scene, sequence, shot

SCENE = [f"walk/{n:02d}-a.png" for n in range(len(EXPOSURES))]
OTHER, BAD = "walk/04-b.png", "walk/04-c.png"


def enhance(
    source: str, target: str, settings: Settings | None = None, **params: Any
) -> EnhanceResult:
    chosen: dict[str, Any] = {
        "enhance": lift,
        "contact_images": 0,
        "even": True,
        "max_bad_share": 1,
    } | params
    return enhance_batch(source, target, settings or Settings(lease_s=30), **chosen)


def rows(target: str) -> dict[str, Row]:
    found = Ledger.of_target(open_store(target, Settings())).past_runs().rows()
    return {row.input_key: row for row in found}


def brightness(target: str, keys: Iterable[str] = SCENE) -> list[float]:
    made = rows(target)
    return [made[key].luminance_after or 0.0 for key in keys]


def outputs(target: str) -> dict[str, bytes]:
    store = open_store(target, Settings())
    keys = [info.key for info in store.list() if not info.key.startswith("_mirnet/")]
    return {key: store.get(key).data for key in keys}


def test_one_scene_comes_out_alike_and_another_one_is_left_alone(
    places: tuple[str, str],
) -> None:
    source, target = places
    fill(source, sequence())
    assert enhance(source, f"{target}-off", even=False).enhanced == len(SCENE) + 1
    result = enhance(source, target)
    assert (result.enhanced, result.quarantined, result.failed) == (len(SCENE) + 1, 1, 0)
    off, on = np.array(brightness(f"{target}-off")), np.array(brightness(target))
    assert off.std() > 0.02 and on.std() <= 0.5 * off.std()
    assert np.abs(np.diff(on)).mean() <= 0.35 * np.abs(np.diff(off)).mean()
    # the means by hand: over up to four before it in the folder, of which some are of no scene
    before = {key: sorted([*SCENE, OTHER, BAD]).index(key) for key in SCENE}
    keys = sorted([*SCENE, OTHER, BAD])
    alone = dict(zip(SCENE, off, strict=True))
    for key, found in zip(SCENE, on, strict=True):
        near = [each for each in keys[max(0, before[key] - 4) : before[key] + 1] if each in alone]
        assert found == pytest.approx(np.mean([alone[each] for each in near]), abs=0.006), key
    # the other scene and the first image have nothing before them
    for key in (OTHER, SCENE[0]):
        assert outputs(target)[key] == outputs(f"{target}-off")[key]
        assert rows(target)[key].evened == 0
    assert rows(f"{target}-off")[OTHER].evened is None


def test_folders_are_sequences_of_their_own(places: tuple[str, str]) -> None:
    source, target = places
    one = scene(1)
    fill(source, {f"{n}/0.png": shot(one, n * 0.5, seed=n) for n in range(4)})
    fill(source, {"5.png": shot(one, 0, seed=5), "6.png": shot(one, 1, seed=6)})
    enhance(source, target)
    made = rows(target)
    assert [made[f"{n}/0.png"].evened for n in range(4)] == [0] * 4
    assert made["5.png"].evened == 0 and (made["6.png"].evened or 0) < -0.1


def test_off_is_as_before(tmp_path: Path) -> None:
    assert Digests.of(EnhanceParams(even=False)) == Digests.of(EnhanceParams())
    source = str(tmp_path / "in")
    fill(source, sequence())
    ours: dict[str, Any] = {"model": MODEL, "settings": Settings()}
    for params, num in ((EnhanceParams(), 0), (EnhanceParams(even=True, exposure=0.4), 0)):
        with preview(source, str(tmp_path / "out"), params=params, **ours) as plan:
            assert {len(item.before) for item in plan} == {num}
    enhance(source, str(tmp_path / "target"), even=True, exposure=0.4)
    enhance(source, str(tmp_path / "plain"), even=False, exposure=0.4)
    assert outputs(str(tmp_path / "target")) == outputs(str(tmp_path / "plain"))


def test_it_is_another_configuration_and_recorded(places: tuple[str, str]) -> None:
    source, target = places
    fill(source, sequence())
    enhance(source, target, even=False)
    again = enhance(source, target)
    assert (again.enhanced, again.skipped) == (len(SCENE) + 1, 1)
    assert enhance(source, target).skipped == len(SCENE) + 2
    head = open_store(target, Settings()).head(SCENE[1])
    origin = from_metadata(head.metadata) if head else None
    assert origin and origin.row.evened == rows(target)[SCENE[1]].evened
    assert origin.row.evened and origin.row.evened < -0.05  # it was exposed for longer


def test_stops_and_strength_apply_to_what_is_even(tmp_path: Path) -> None:
    source = str(tmp_path / "in")
    fill(source, sequence())
    choices: dict[str, dict[str, Any]] = {"stops": {"exposure": "+0.5"}, "half": {"strength": 0.5}}
    for name, more in choices.items():
        spread = []
        for even in (False, True):
            target = str(tmp_path / f"{name}-{even}")
            enhance(source, target, even=even, enhance=enhancer(), **more, **UNGUARDED)
            spread.append(np.std(brightness(target)))
        assert spread[1] < 0.75 * spread[0], name
    enhance(source, str(tmp_path / "none"), strength=0, **UNGUARDED)
    store = open_store(str(tmp_path / "none"), Settings())
    assert all(row.luminance_after == row.luminance_before for row in rows(store.uri).values())


def enhancer() -> Enhancer:
    torch.manual_seed(0)
    return Enhancer(build("zerodce").eval(), precision="float32", compile=False)


def test_bright_images_count_as_they_are(tmp_path: Path) -> None:
    """The input is written, so its brightness is what the next one comes near to."""
    source, target = str(tmp_path / "in"), str(tmp_path / "out")
    one = scene(1)
    fill(source, {"0.png": shot(one, 6, seed=0), "1.png": shot(one, 0, seed=1)})
    enhance(source, target)
    made = rows(target)
    assert (made["0.png"].status, made["0.png"].evened) == ("passed_through", None)
    plain = str(tmp_path / "off")
    enhance(source, plain, even=False)
    bright, dark = brightness(plain, ["0.png", "1.png"])
    assert made["1.png"].luminance_after == pytest.approx((bright + dark) / 2, abs=0.01)


def test_what_the_network_spoils_is_found(tmp_path: Path) -> None:
    source, target = str(tmp_path / "in"), str(tmp_path / "out")
    fill(source, sequence())
    result = enhance(source, target, enhance=darken)
    assert (result.enhanced, result.passed_through) == (0, len(SCENE) + 1)
    assert outputs(target).items() <= sequence().items()


@pytest.fixture
def calm(places: tuple[str, str]) -> dict[str, bytes]:
    """The outputs of one undisturbed run with one worker."""
    source, target = places
    fill(source, sequence() | sequence("later"))
    enhance(source, f"{target}-calm", Settings(lease_s=30, io_threads=1))
    return outputs(f"{target}-calm")


def test_several_workers(places: tuple[str, str], calm: dict[str, bytes]) -> None:
    enhance(*places, Settings(lease_s=30, io_threads=8))
    assert outputs(places[1]) == calm and len(calm) == 2 * (len(SCENE) + 1)


def test_nights_of_a_few_images_in_any_order(
    places: tuple[str, str], calm: dict[str, bytes]
) -> None:
    source, target = places
    for night in range(6):
        enhance(source, target, limit_to(night))
    chance = random.Random(0)
    for _ in range(3):
        for key in chance.sample(sorted(calm), 4):
            open_store(target, Settings()).delete(key)
        assert enhance(source, target).enhanced == 4
    assert outputs(target) == calm


def limit_to(night: int) -> Settings:
    return Settings(lease_s=30, io_threads=1 + night)


def test_a_limit(places: tuple[str, str], calm: dict[str, bytes]) -> None:
    source, target = places
    while len(outputs(target)) < len(calm):
        params = EnhanceParams(contact_images=0, even=True, max_bad_share=1)
        ours: dict[str, Any] = {"enhance": lift, "model": MODEL, "settings": Settings()}
        assert run_batch(source, target, params=params, limit=5, **ours).planned
    assert outputs(target) == calm


def test_kill_9_at_random_moments(
    places: tuple[str, str], calm: dict[str, bytes], variables: dict[str, str]
) -> None:
    source, target = places
    chance, killed = random.Random(4), 0
    for _ in range(30):
        child = start(
            *(source, target),
            settings={"lease_s": 1.0, "flush_s": 0.1},
            variables=variables,
            enhance=Slowly(),
            kill_attempts=100,
            even=True,
        )
        child.join(timeout=chance.uniform(0.3, 1.5))
        with contextlib.suppress(ProcessLookupError):
            os.kill(child.pid or 0, signal.SIGKILL)
        child.join()
        killed += child.exitcode == -signal.SIGKILL
        if killed == 4:
            break
        time.sleep(chance.choice([0.0, 0.6]))
    for _ in range(100):
        if enhance(source, target, kill_attempts=100).held_by is None:
            break
        time.sleep(0.1)
    assert killed == 4 and outputs(target) == calm


class Slowly:
    def __call__(self, image: Any) -> Any:
        time.sleep(0.08)
        return lift(image)


def announce(source: str, target: str, keys: list[str], run: str = "00000000-died") -> None:
    versions = {info.key: info.version for info in open_store(source, Settings()).list()}
    data = json.dumps([[key, versions[key]] for key in keys]).encode()
    open_store(target, Settings()).put(f"_mirnet/runs/{run}/in-hand.json", data)


@pytest.mark.parametrize(
    "in_flight",
    [SCENE[2:5], *(pytest.param([key], marks=pytest.mark.slow) for key in (SCENE[3], BAD))],
)
def test_suspects_and_those_after_them_are_made_in_a_child(
    in_flight: list[str],
    places: tuple[str, str],
    calm: dict[str, bytes],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    source, target = places
    announce(source, target, in_flight)
    ours: dict[str, Any] = {"model": MODEL, "settings": Settings()}
    with preview(source, target, params=EnhanceParams(even=True), **ours) as plan:
        alone = {item.info.key for item in plan if item.suspect}
        here = {key for item in plan if not item.suspect for key, _ in item.before}
    keys = sorted([*SCENE, OTHER, BAD])
    after = {each for key in in_flight for each in keys[keys.index(key) : keys.index(key) + 5]}
    assert alone == after and not here & set(in_flight)
    decoded = image_work.__dict__["decode"]

    def decode(data: bytes, *, name: str, max_pixels: int) -> Any:
        assert name not in in_flight
        return decoded(data, name=name, max_pixels=max_pixels)

    monkeypatch.setattr(image_work, "decode", decode)
    enhance(source, target)
    assert outputs(target) == calm


@pytest.mark.slow
@pytest.mark.parametrize("how", ["abort", "loop"])
def test_one_that_kills_costs_itself_only(how: str, tmp_path: Path) -> None:
    """As a bad file: the images after it come out as if it had no pixels."""
    source, target, calm = (str(tmp_path / name) for name in ("in", "out", "calm"))
    images = {key: data for key, data in sequence().items() if key in SCENE[:6]}
    fill(source, images | {SCENE[2]: b"x"})
    settings = Settings(lease_s=30, image_stuck_s=3)
    killer = Killer(how)
    enhance(source, calm, settings, enhance=killer)
    fill(source, {SCENE[2]: picture(7, side=killer.side)})
    child = start(
        *(source, target),
        settings={"lease_s": 1},
        variables={},
        enhance=Killer("kill"),
        even=True,
    )
    child.join()
    assert child.exitcode == -signal.SIGKILL
    time.sleep(1.2)
    for failed in (1, 0):
        result = enhance(source, target, settings, enhance=killer)
        assert (result.failed, result.quarantined) == (failed, 1 - failed)
        assert outputs(target) == outputs(calm)
    fill(source, {"walk/06-d.png": shot(scene(1), 0, seed=99)})
    assert enhance(source, target, settings, enhance=killer).enhanced == 1


def test_one_that_came_before_and_is_gone_or_refused(
    places: tuple[str, str], monkeypatch: pytest.MonkeyPatch
) -> None:
    source, target = places
    fill(source, {key: data for key, data in sequence().items() if key in SCENE[:3]})
    enhance(source, target)
    both = rows(target)[SCENE[2]].evened
    open_store(target, Settings()).delete(SCENE[2])
    store = type(open_store(source, Settings()))
    get = store.get

    def refuse(error: Exception) -> None:
        def refusing(self: Any, key: str) -> Blob:
            if key == SCENE[0]:
                raise error
            return get(self, key)

        monkeypatch.setattr(store, "get", refusing)

    refuse(TransientStorageError("no answer"))
    result = enhance(source, target)
    assert (result.enhanced, result.failed) == (0, 1)
    assert (rows(target)[SCENE[2]].reason or "").startswith("storage: no answer")
    refuse(ObjectMissing("gone"))
    assert enhance(source, target).enhanced == 1
    assert rows(target)[SCENE[2]].evened not in (both, 0)


def test_the_network_runs_once_per_image_and_up_to_four_times_more_after_a_break(
    tmp_path: Path,
) -> None:
    source, target = str(tmp_path / "in"), str(tmp_path / "out")
    fill(source, sequence())
    ran: list[int] = []

    def counted(image: Any) -> Any:
        ran.append(1)
        return lift(image)

    enhance(source, target, enhance=counted)
    assert len(ran) == len(SCENE) + 1
    ran.clear()
    fill(source, {"walk/99-a.png": shot(scene(1), 0, seed=99)})
    assert enhance(source, target, enhance=counted).enhanced == 1
    assert len(ran) == 5


def test_a_network_in_batches_and_in_nights(tmp_path: Path) -> None:
    """Images of two sizes wait for their batches, and are seen before they are made."""
    source, target = str(tmp_path / "in"), str(tmp_path / "out")
    one = scene(1)
    sizes = {n: one if n % 3 else np.ascontiguousarray(one[:32]) for n in range(36)}
    fill(source, {f"{n:02d}.png": shot(sizes[n], n % 5 / 4, seed=n) for n in range(36)})
    model = enhancer()
    settings = Settings(lease_s=30)
    params: dict[str, Any] = {"enhance": model, **UNGUARDED}
    enhance(source, target, settings, **params)
    assert any((row.evened or 0) != 0 for row in rows(target).values())
    calm = outputs(target)
    for key in ("05.png", "17.png", "18.png", "35.png"):
        (tmp_path / "out" / key).unlink()
    # as a run that goes on
    (run,) = (tmp_path / "out/_mirnet/runs").iterdir()
    (run / "summary.json").unlink()
    assert enhance(source, target, settings, **params).enhanced == 36  # with those adopted
    assert outputs(target) == calm


@pytest.mark.parametrize(
    "facts",
    [
        {},
        {"seen": 1},
        {"seen": {"thumbnail": [0.0] * 255, "brightness": 0.5}},
        {"seen": {"thumbnail": [0.0] * 255 + [float("nan")], "brightness": 0.5}},
        {"seen": {"thumbnail": [0.0] * 256, "brightness": 1.5}},
        {"seen": {"thumbnail": [0.0] * 256, "brightness": 0.5, "more": 1}},
        {"problem": {"status": "enhanced", "reason": "x"}},
    ],
)
def test_what_a_child_may_not_have_seen(facts: dict[str, Any]) -> None:
    with pytest.raises(ValueError, match=r".+"):
        view_in(Message(facts))
    assert view_in(Message({"seen": None})) is None


def test_memory_is_bounded() -> None:
    kept, source = SeenImages(), open_store("/tmp", Settings())
    for n in range(1100):
        kept.keep((f"{n}", "1"), Seen((0.0,), 0.5))
    assert len(kept._kept) == 1024
    assert kept.of([("1099", "1")], source, lambda *_: None) == [Seen((0.0,), 0.5)]
