"""Nights with an image that kills the process."""

from __future__ import annotations

import json
import signal
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

import pytest
import torch

from mirnet import stages
from mirnet.batch import image_job, image_work, run_config, suspects
from mirnet.batch.child_work import output_in
from mirnet.batch.image_work import Encoded, Problem
from mirnet.batch.isolation import Child
from mirnet.batch.ledger import Ledger
from mirnet.batch.manifest import KILLS
from mirnet.batch.messages import Message
from mirnet.config import Settings
from mirnet.errors import NO_MEMORY
from mirnet.models import build, save_model
from mirnet.params import EnhanceParams, load_params
from mirnet.results import EnhanceResult
from mirnet.storage.places import open_store
from tests.batch.child import CONTEXT, start
from tests.batch.killers import DEADLY_SIDE, Killer
from tests.batch.samples import UNGUARDED, double, enhance_batch, fill, picture

IMAGES = {f"{n}.png": picture(n, side=24) for n in range(6)}
DEADLY = picture(7, side=DEADLY_SIDE)
LIMITS: dict[str, Any] = {"lease_s": 30, "image_stuck_s": 3, "child_memory_gib": 0.6}


def answer(source: str, target: str, killer: Killer) -> str | None:
    """The answer of a run in a process of its own; none: it was killed."""
    answers = CONTEXT.Queue()
    job = start(source, target, settings=LIMITS, variables={}, answers=answers, enhance=killer)
    job.join()
    return None if job.exitcode == -signal.SIGKILL else answers.get(timeout=10)


def night(source: str, target: str, killer: Killer) -> EnhanceResult | None:
    """As :func:`answer`, of a run that completes."""
    found = answer(source, target, killer)
    return None if found is None else EnhanceResult.model_validate_json(found)


def rows_of(target: str, run_id: str) -> dict[str, tuple[str, str | None]]:
    past = Ledger.of_target(open_store(target, Settings())).past_runs()
    return {row.input_key: (row.status, row.reason) for row in past.rows() if row.run_id == run_id}


@pytest.mark.parametrize("how", ["abort", pytest.param("loop", marks=pytest.mark.slow)])
def test_after_the_first_night_none_is_red(how: str, tmp_path: Path) -> None:
    source, target = str(tmp_path / "in"), str(tmp_path / "out")
    fill(source, IMAGES | {"deadly.png": DEADLY})
    assert night(source, target, Killer("kill")) is None
    second = night(source, target, Killer(how))
    assert second is not None and second.summary_uri and second.problem is None
    assert second.enhanced + second.skipped == len(IMAGES)
    assert (second.quarantined, second.failed, second.reasons) == (0, 1, {"died": 1})
    status, reason = rows_of(target, second.run_id)["deadly.png"]
    assert status == "failed" and (reason or "").startswith("died: 1 of 2 deaths: ")
    third = night(source, target, Killer(how))
    assert third is not None and third.problem is None
    assert (third.quarantined, third.failed, third.reasons) == (1, 0, {KILLS: 1})
    assert rows_of(target, third.run_id)["deadly.png"] == ("quarantined", KILLS)
    assert (tmp_path / "out/_mirnet/quarantine/deadly.png").read_bytes() == DEADLY
    for number in range(2):
        fill(source, {f"new{number}.png": picture(50 + number, side=24)})
        later = night(source, target, Killer(how))
        assert later is not None
        assert (later.enhanced, later.quarantined, later.failed) == (1, 0, 0)
    # somebody names it: tried again, still isolated, and one death is enough
    named = answer(f"{source}/deadly.png", target, Killer(how))
    assert named is not None and named.startswith("TooManyBad") and KILLS in named
    # it has changed
    fill(source, {"deadly.png": picture(8, side=24)})
    last = night(source, target, Killer(how))
    assert last is not None and last.enhanced == 1


@pytest.mark.parametrize("how", ["kill", pytest.param("memory", marks=pytest.mark.slow)])
def test_a_shortage_of_memory_condemns_no_image(how: str, tmp_path: Path) -> None:
    """The kernel ends the child first, whoever fills the memory; or its limit is too low."""
    source, target = str(tmp_path / "in"), str(tmp_path / "out")
    fill(source, {"0.png": picture(0), "deadly.png": DEADLY})
    announce(source, target, [["deadly.png"]])
    for _ in range(3):
        result = enhance_batch(source, target, Settings(**LIMITS), enhance=Killer(how))
        assert (result.quarantined, result.failed, result.reasons) == (0, 1, {NO_MEMORY: 1})
        _, reason = rows_of(target, result.run_id)["deadly.png"]
        assert (reason or "").startswith("memory: 1 of 2 deaths: ")  # that of the process
    # the night is over
    assert enhance_batch(source, target, Settings(lease_s=30)).enhanced == 1


def test_memory_that_no_healthy_image_takes_does(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(suspects, "_MODEL_BYTES", 0)
    source, target = str(tmp_path / "in"), str(tmp_path / "out")
    fill(source, {"deadly.png": DEADLY})
    announce(source, target, [["deadly.png"]])
    result = enhance_batch(source, target, Settings(**LIMITS), enhance=Killer("memory"))
    assert (result.quarantined, result.reasons) == (1, {KILLS: 1})


def test_a_limit_below_what_the_child_takes_is_no_death(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    source, target = str(tmp_path / "in"), str(tmp_path / "out")
    fill(source, IMAGES)
    announce(source, target, [list(IMAGES)])
    settings = Settings(lease_s=30, child_memory_gib=0.001)
    assert enhance_batch(source, target, settings).enhanced == len(IMAGES)
    assert "not isolated: it takes" in caplog.text and "MIRNET_CHILD_MEMORY_GIB" in caplog.text


COLUMNS: dict[str, Any] = {
    **dict.fromkeys(("luminance_before", "luminance_after", "dark_share", "bright_share"), 0.5),
    **{"noise": 0, "saturation": 0.1, "shadows": 0.2, "width": 24, "height": 24, "dropped": None},
    "evened": 0.25,
}
OUTPUT: dict[str, Any] = {
    **{"content_type": "image/png", "passed": None, "columns": COLUMNS, "parts": ["data"]},
}


def test_what_the_child_may_answer() -> None:
    found = output_in(Message(OUTPUT, (b"png",)))
    assert isinstance(found, Encoded) and found.data == b"png"
    assert found.columns.model_dump() == COLUMNS
    assert output_in(Message({"problem": {"status": "failed", "reason": "model: x"}})) == Problem(
        "failed", "model: x"
    )
    with pytest.raises(ValueError, match="shorter"):
        output_in(Message(OUTPUT, ()))


@pytest.mark.parametrize(
    "facts",
    [
        {},
        {"problem": {"status": "enhanced", "reason": "x"}},
        {"problem": {"status": "failed", "reason": "\ud800"}},
        {"problem": {"status": "failed"}},
        {"problem": 7},
        OUTPUT | {"columns": COLUMNS | {"width": "abc"}},
        OUTPUT | {"columns": COLUMNS | {"width": 2**63}},
        OUTPUT | {"columns": COLUMNS | {"noise": 10**400}},
        OUTPUT | {"columns": COLUMNS | {"noise": True}},
        OUTPUT | {"columns": COLUMNS | {"status": "skipped"}},
        OUTPUT | {"columns": {}},
        OUTPUT | {"content_type": "text/html"},
        OUTPUT | {"passed": 1},
        OUTPUT | {"parts": []},
        OUTPUT | {"parts": ["data", "data"]},
        OUTPUT | {"parts": ["rejected"]},
        OUTPUT | {"parts": ["output"]},
    ],
)
def test_what_it_may_not(facts: dict[str, Any]) -> None:
    with pytest.raises(ValueError, match=r".+"):
        output_in(Message(facts, (b"png",)))


def test_an_answer_that_is_none_costs_its_image_only(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As of a child that a file has taken over."""
    source, target = str(tmp_path / "in"), str(tmp_path / "out")
    fill(source, IMAGES)
    announce(source, target, [list(IMAGES)])
    asked = Child.ask

    def taken_over(child: Child, message: Message) -> Message:
        answer = asked(child, message)
        wrong = (message.facts["do"], message.facts["name"]) == ("work", "1.png")
        return Message({}) if wrong else answer

    monkeypatch.setattr(Child, "ask", taken_over)
    result = enhance_batch(source, target, Settings(lease_s=30))
    assert (result.enhanced, result.failed) == (len(IMAGES) - 1, 1)
    _, reason = rows_of(target, result.run_id)["1.png"]
    assert reason == "died: 1 of 2 deaths: sent something else than an answer"


def test_what_was_in_flight_by_chance_is_enhanced_to_the_same_bytes(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """In the child alone: this process looks at none of the bytes."""
    source, target, calm = (str(tmp_path / name) for name in ("in", "out", "calm"))
    images = IMAGES | {"bad.png": IMAGES["1.png"][:200], "light.png": picture(3, level=255)}
    fill(source, images)
    announce(source, target, [list(images)])
    with monkeypatch.context() as patched:
        patched.setattr(image_work, "decode", lambda *_, **__: pytest.fail("decoded here"))
        patched.setattr(image_job, "read_size", lambda *_, **__: pytest.fail("read here"))
        result = enhance_batch(source, target, Settings(lease_s=30), contact_images=0)
    enhance_batch(source, calm, Settings(lease_s=30), contact_images=0)
    assert rows_of(target, result.run_id) == {
        row.input_key: (row.status, row.reason)
        for row in Ledger.of_target(open_store(calm, Settings())).past_runs().rows()
    }
    for key in [*IMAGES, "light.png"]:
        assert (tmp_path / "out" / key).read_bytes() == (tmp_path / "calm" / key).read_bytes()


@pytest.mark.slow
def test_a_real_network_gives_the_same_bytes_in_a_child(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    torch.manual_seed(0)
    save_model(build("mirnet-xs", n_feat=8), tmp_path / "model")
    source, target, calm = (str(tmp_path / name) for name in ("in", "out", "calm"))
    images = IMAGES | {"large.png": picture(77, side=300)}
    fill(source, images)
    announce(source, target, [list(images)])
    overrides = ("enhance.contact_images=0", *(f"enhance.{name}=null" for name in UNGUARDED))
    settings = Settings(workspace=tmp_path / "workspace", reports_dir=tmp_path / "reports")
    run = stages.RunConfig(load_params("demo", overrides=overrides), settings)
    for place in (target, calm):
        result = stages.enhance(source, place, run, model=str(tmp_path / "model"))
        assert result.enhanced == len(images)
    assert "not isolated" not in caplog.text
    for key in images:
        assert (tmp_path / "out" / key).read_bytes() == (tmp_path / "calm" / key).read_bytes()


def test_images_are_announced_before_their_headers_are_read(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    source, target = str(tmp_path / "in"), str(tmp_path / "out")
    fill(source, IMAGES)
    announce(source, target, [["0.png"]])
    seen: dict[str, int] = {}

    def look(_data: bytes, *, name: str) -> tuple[int, int]:
        (told,) = (tmp_path / "out/_mirnet/runs").glob("00000001-*/in-hand.json")
        seen[name] = len(json.loads(told.read_bytes()))
        return 24, 24

    monkeypatch.setattr(run_config, "read_size", look)
    monkeypatch.setattr(run_config, "LEAST_EXPECTED", 1)
    assert enhance_batch(source, target, Settings(lease_s=30)).enhanced == len(IMAGES)
    assert seen == dict.fromkeys([key for key in IMAGES if key != "0.png"], len(IMAGES) - 1)
    assert not list((tmp_path / "out/_mirnet/runs").glob("00000001-*/in-hand.json"))


def test_what_kills_the_parent_too_is_given_up_untried(tmp_path: Path) -> None:
    """As where the kernel kills all processes of a container at once."""
    source, target = str(tmp_path / "in"), str(tmp_path / "out")
    fill(source, IMAGES | {"deadly.png": DEADLY})
    announce(source, target, [[*IMAGES, "deadly.png"], ["deadly.png"]])
    assert night(source, target, Killer("kill")) is not None  # one attempt is left
    announce(source, f"{target}-2", [["deadly.png"], ["deadly.png"], ["0.png"]])
    tried: list[int] = []

    def not_in_a_child(image: Any) -> Any:
        tried.append(image.pixels.shape[0])
        return double(image)

    result = enhance_batch(source, f"{target}-2", Settings(lease_s=30), enhance=not_in_a_child)
    assert (result.enhanced, result.quarantined) == (len(IMAGES), 1)
    assert DEADLY_SIDE not in tried


def test_deaths_before_an_image_was_done_do_not_count(tmp_path: Path) -> None:
    source, target = str(tmp_path / "in"), str(tmp_path / "out")
    fill(source, {"a.png": picture(1)})
    announce(source, target, [["a.png"]])
    settings = Settings(lease_s=30)
    assert enhance_batch(source, target, settings).enhanced == 1
    (tmp_path / "out" / "a.png").unlink()
    announce(source, target, [["a.png"]], first=90_000_000)
    # one death since
    assert enhance_batch(source, target, settings).enhanced == 1


def test_two_workers_of_one_run_are_one_death(tmp_path: Path) -> None:
    source, target = str(tmp_path / "in"), str(tmp_path / "out")
    fill(source, {"a.png": picture(1)})
    announce(source, target, [["a.png"]])
    run = tmp_path / "out/_mirnet/runs/00000000-died"
    (run / "in-hand-0f-000.json").write_bytes((run / "in-hand.json").read_bytes())
    assert enhance_batch(source, target, Settings(lease_s=30)).enhanced == 1


def test_a_process_gives_back_its_memory_for_each_child() -> None:
    """A Ray worker works by itself in between."""
    given_back: list[str] = []
    engine = SimpleNamespace(give_back=lambda: given_back.append("memory"))
    params, nothing = EnhanceParams(), cast("Any", None)
    job = SimpleNamespace(params=params, work=SimpleNamespace(engine=engine))
    ours = suspects.Suspects(cast("Any", job), nothing, Settings())
    for number in (1, 1, 2):
        if number > len(given_back):
            ours.close()
        ours._started()
        assert len(given_back) == number


def announce(source: str, target: str, deaths: list[list[str]], *, first: int = 0) -> None:
    """As runs that died with these in flight."""
    versions = {info.key: info.version for info in open_store(source, Settings()).list()}
    runs = open_store(f"{target}/_mirnet/runs", Settings())
    for term, keys in enumerate(deaths, start=first):
        told = json.dumps([[key, versions[key]] for key in keys]).encode()
        runs.put(f"{term:08d}-died/in-hand.json", told)
