"""Terms against values that the published training gave (reference vectors of ../shared/zoo)."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from mirnet.models import Architecture, architectures, build, read_checkpoint
from mirnet.models.llflow.network import LLFlow
from mirnet.models.mobileie.network import with_gaps
from mirnet.objectives.patches.terms import sparsity
from mirnet.objectives.region.terms import region
from mirnet.objectives.registry import by_name, objectives
from mirnet.objectives.sci.terms import guide
from mirnet.objectives.total import Sample, combined

ZOO = Path(__file__).parents[3] / "shared" / "zoo"


def load(name: str) -> dict[str, Tensor]:
    path = ZOO / f"{name}.npz"
    if not path.is_file():
        pytest.skip(f"{path} is not here")
    with np.load(path) as file:
        return {key: torch.from_numpy(file[key]) for key in file.files}


def check(found: Tensor, expected: Tensor | float) -> None:
    torch.testing.assert_close(found.detach().mean().item(), float(expected), rtol=2e-5, atol=1e-9)


def value(name: str, sample: Sample) -> Tensor:
    return by_name(name).load()(sample)


def test_zero_dce() -> None:
    known = load("zerodce_loss")
    sample = Sample(
        output=known["enhanced"],
        low=known["org"],
        high=torch.zeros_like(known["org"]),
        details={"curves": known["A"]},
    )
    check(value("spatial", sample), known["spa"])
    check(value("exposure", sample), known["exp"])
    check(value("colour-balance", sample), known["color"])
    check(value("curve-smoothness", sample), known["tv"])
    weights = {"curve-smoothness": 200.0, "spatial": 1.0, "colour-balance": 5.0, "exposure": 10.0}
    check(combined(sample, weights)[0], known["total"])


def test_a_grey_image_has_a_finite_gradient() -> None:
    output = torch.full((1, 3, 16, 16), 0.25, requires_grad=True)
    sample = Sample(output=output, low=output.detach(), high=output.detach())
    value("colour-balance", sample).sum().backward()
    assert output.grad is not None and bool(output.grad.isfinite().all())


def test_a_step_of_zero_dce_has_the_published_gradient() -> None:
    known = load("zerodce_loss")
    network = read_checkpoint(ZOO / "zerodce.pth").train()
    prediction = network.predict(known["step_x"], known["step_x"])
    sample = Sample(
        output=prediction.output,
        low=known["step_x"],
        high=known["step_x"],
        details=prediction.details,
    )
    weights = {"curve-smoothness": 200.0, "spatial": 1.0, "colour-balance": 5.0, "exposure": 10.0}
    total, _ = combined(sample, weights)
    check(total, known["step_total"])
    total.mean().backward()
    found = dict(network.named_parameters())
    for name in ("e_conv1.weight", "e_conv7.bias"):
        expected = known[f"grad_{name.replace('.', '_')}"]
        torch.testing.assert_close(found[name].grad, expected, rtol=1e-3, atol=1e-3)


@pytest.mark.parametrize(
    "entry", [each for each in architectures() if each.details], ids=lambda each: each.family
)
def test_a_network_gives_the_by_products_of_its_entry(entry: Architecture) -> None:
    torch.manual_seed(0)
    hidden = {"hidden": (16, 12, 8, 12, 16)}
    sizes: dict[str, Any] = hidden if entry.family == "llnet" else {"width": 4}
    network = build(list(entry.variants)[-1], **sizes)
    low, high = torch.rand(2, 2, 3, 24, 24)
    prediction = network.predict(low, high)
    assert set(prediction.details) == entry.details
    torch.testing.assert_close(prediction.output, network(low))
    sample = Sample(output=prediction.output, low=low, high=high, details=prediction.details)
    readable = [
        each.name
        for each in objectives()
        if each.details <= entry.details and not (each.features or each.discriminator)
    ]
    total, _ = combined(sample, dict.fromkeys(readable, 1.0))
    total.sum().backward()
    assert all(p.grad is not None for p in network.parameters()), "every part is trained"


def test_sci() -> None:
    known = load("sci_io")
    stages = {
        name: torch.stack([known[f"{key}{number}"] for number in (1, 2, 3)], dim=1)
        for name, key in (("illuminations", "illum"), ("stage_inputs", "in"))
    }
    torch.testing.assert_close(guide(known["x"]), known["ycc_of_x"])
    sample = Sample(output=known["y"], low=known["x"], high=known["x"], details=stages)
    check(value("sci-fidelity", sample), known["fidelity"].sum())
    check(value("sci-smoothness", sample), known["smooth"].sum())
    check(combined(sample, {"sci-fidelity": 1.5, "sci-smoothness": 1.0})[0], known["total"])


def test_training_of_sci() -> None:
    """The stages of the published training network, with its running or the batch's statistics."""
    known, published = load("sci_io"), torch.load(ZOO / "sci.pth", weights_only=True)
    model = build("sci")
    model.add_training_parts(["self-calibrated"])
    model.load_state_dict({key: published[key] for key in model.state_dict()})
    for train, total in ((False, float(known["total"])), (True, 57.283760)):
        prediction = model.train(train).predict(known["x"], known["x"])
        sample = Sample(
            output=prediction.output,
            low=known["x"],
            high=known["x"],
            details=prediction.details,
        )
        if not train:
            torch.testing.assert_close(prediction.output, known["refl1"])
            for number in (1, 2, 3):
                inputs = prediction.details["stage_inputs"][:, number - 1]
                torch.testing.assert_close(inputs, known[f"in{number}"], rtol=0, atol=1e-5)
        check(combined(sample, model.architecture.objective)[0], total)


def test_tails_of_the_warm_up_of_mobileie(monkeypatch: pytest.MonkeyPatch) -> None:
    known = load("mobileie_train_io")
    model = build("mobileie")
    model.add_training_parts(["warm-up"])
    model.eval().load_state_dict(torch.load(ZOO / "mobileie_train.pth", weights_only=True))
    model.phase = "warm-up"
    monkeypatch.setattr("mirnet.models.mobileie.network.with_gaps", lambda image: image)
    with torch.inference_mode():
        found = model.predict(known["x"], known["x"])
    torch.testing.assert_close(found.output, known["warm_out_nodrop"], rtol=0, atol=1e-5)
    other = found.details["reconstruction"]
    torch.testing.assert_close(other, known["warm_tail_nodrop"], rtol=0, atol=1e-5)


def test_gaps_are_blocks_and_a_function_of_the_image() -> None:
    images = torch.rand(2, 3, 200, 200) + 0.01
    cut = with_gaps(images)
    gone = (cut == 0).all(1)
    assert torch.equal(cut, images * ~gone[:, None]), "in all channels, the rest stays"
    # a pixel stays if none of 9 positions starts a block
    assert gone.float().mean().item() == pytest.approx(1 - (1 - 0.5 / 9) ** 9, abs=0.02)
    assert torch.equal(with_gaps(images[1:]), cut[1:])
    assert not torch.equal(gone[0], gone[1])


def test_retinexnet() -> None:
    known = load("retinexnet_w16_io")
    model_free = {"reflectance": known["R"], "illumination": known["L"], "relit": known["I_delta"]}
    sample = Sample(output=known["y"], low=known["x"], high=known["target"], details=model_free)
    check(value("retinex-relight", sample), known["loss_relight"])
    check(value("retinex-relight-smoothness", sample), known["loss_smooth_delta"])
    weights = {"retinex-relight": 1.0, "retinex-relight-smoothness": 3.0}
    check(combined(sample, weights)[0], known["loss_relight_total"])
    # the reference's decomposition is not stored: that of the low in its place
    twice = model_free | {"reflectance_high": known["R"], "illumination_high": known["L"]}
    same = Sample(output=known["y"], low=known["x"], high=known["x"], details=twice)
    check(value("retinex-reconstruction", same), 2 * known["loss_recon_low"])
    check(value("retinex-exchange", same), 2 * known["loss_recon_low"])
    check(value("retinex-smoothness", same), 2 * known["loss_smooth_low"])
    check(value("retinex-reflectance", same), 0.0)


def test_pairlie_does_not_compute_an_illumination_of_the_reference() -> None:
    model = build("pairlie", width=4)
    passes: list[int] = []
    model.get_submodule("L_net").register_forward_hook(lambda *_: passes.append(1))
    details = model.predict(*torch.rand(2, 1, 3, 16, 16)).details
    assert len(passes) == 1
    assert details["reflectance_high"].shape == (1, 3, 16, 16)


def test_pairlie() -> None:
    known = load("pairlie_io")
    details = {
        "reflectance": known["R"],
        "reflectance_high": known["R_of_x2"],
        "illumination": known["L"],
        "projected": known["N"],
    }
    sample = Sample(output=known["y"], low=known["x"], high=known["x2"], details=details)
    check(value("pairlie-reflectance", sample), known["loss_C"])
    check(value("pairlie-retinex", sample), known["loss_R"])
    check(value("pairlie-projection", sample), known["loss_P"])
    weights = {"pairlie-reflectance": 1.0, "pairlie-retinex": 1.0, "pairlie-projection": 500.0}
    check(combined(sample, weights)[0], known["total"])


def test_mbllen() -> None:
    shape = 2, 3, 256, 256
    first, second = (np.random.RandomState(seed).uniform(0, 1, shape) for seed in (21, 22))
    output, target = (torch.from_numpy(a).float() for a in (first, 0.5 * first + 0.5 * second))
    check(region(output, target), 0.3622509)


def test_llflow() -> None:
    known = load("llflow_io")
    network = read_checkpoint(ZOO / "llflow.pth")
    assert isinstance(network, LLFlow)
    bits = network.likelihoods(known["x"], known["gt"])
    sample = Sample(output=known["y"], low=known["low"], high=known["gt"], details=bits)
    expected = 0.8 * known["nll"].mean() + 0.2 * known["nll_gt_mean"].mean()
    check(value("flow-likelihood", sample), expected)


def test_llnet() -> None:
    known = load("llnet_small_io")
    network = read_checkpoint(ZOO / "llnet_small.pth")
    low, high = (known[name].reshape(-1, 3, 17, 17).float() for name in ("patches", "target"))
    prediction = network.predict(low, high)
    sample = Sample(output=prediction.output, low=low, high=high, details=prediction.details)
    total, _ = combined(sample, {"llnet-patches": 1.0, "llnet-decay": 1.0})
    check(total, known["finetune_cost"])
    # the first layer's units, and their mean over a batch of patches, as in its pretraining
    activity = prediction.details["activity"][:, :48].mean(0, keepdim=True)
    check(sparsity(activity), known["pretrain_kl"])
