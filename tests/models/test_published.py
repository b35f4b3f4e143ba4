"""Import of published checkpoints, on files made here in the published layout."""

import pickle
import re
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor
from typer.testing import CliRunner

from mirnet.cli.weights import app
from mirnet.errors import WeightsError
from mirnet.inference import Enhancer
from mirnet.models import build, load_model, read_checkpoint, save_model
from mirnet.models.layers.residual_checkpoint import SHARED_ACTIVATION
from mirnet.models.margin import Margined
from mirnet.models.mirnet.published import block_names
from mirnet.models.mirnet_v2.published import BLOCK_NAMES


def published(name: str, *, prefix: str = "") -> dict[str, Tensor]:
    """Our small random network under the names of the published checkpoints."""
    torch.manual_seed(0)
    model = build(name, n_feat=16, num_rrg=1, num_msrb=1)
    ours = dict(model.named_parameters())
    table = BLOCK_NAMES if name == "mirnet-v2" else block_names(16)
    state = {}
    for theirs, mine in table.items():
        key = f"groups.0.blocks.0.{mine}.weight"
        value = ours.get(key)
        if value is None and ".activation" in key and "attention" in key:
            value = ours[SHARED_ACTIVATION]
        if value is not None:
            state[f"body.0.body.0.{theirs}.weight"] = value.detach()
    state["body.0.body.1.weight"] = ours["groups.0.conv.weight"].detach()
    for end in ("conv_in", "conv_out"):
        state[f"{end}.weight"] = ours[f"{end}.weight"].detach()
    return {prefix + key: value for key, value in state.items()}


@pytest.mark.parametrize("name", ["mirnet", "mirnet-v2"])
@pytest.mark.parametrize("prefix", ["", "module."])
@pytest.mark.parametrize("wrapper", ["state_dict", "params", None])
def test_reads_both_networks(name: str, prefix: str, wrapper: str | None, tmp_path: Path) -> None:
    state = published(name, prefix=prefix)
    path = tmp_path / "net.pth"
    torch.save({wrapper: state, "epoch": 3} if wrapper else state, path)
    model = read_checkpoint(path)
    torch.manual_seed(0)
    same = build(name, n_feat=16, num_rrg=1, num_msrb=1)
    for (key, got), want in zip(model.named_parameters(), same.parameters(), strict=True):
        assert torch.equal(got, want), key
    folder = save_model(model, tmp_path / "model", extra={"run_id": "r"})
    again = load_model(folder)
    assert all(map(torch.equal, again.parameters(), same.parameters()))


def test_missing_left_over_and_wrong_keys_are_named(tmp_path: Path) -> None:
    path = tmp_path / "net.pth"
    state = published("mirnet")
    del state["body.0.body.0.conv_out.weight"]
    state["surprise.weight"] = torch.zeros(1)
    torch.save({"state_dict": state}, path)
    with pytest.raises(WeightsError) as caught:
        read_checkpoint(path)
    message = str(caught.value)
    assert message.startswith(str(path))
    assert "missing 1: body.0.body.0.conv_out.weight" in message  # its own name for it
    assert "unexpected 1: surprise.weight" in message
    state = published("mirnet") | {"conv_out.weight": torch.zeros(3, 8, 3, 3)}
    torch.save({"state_dict": state}, path)
    with pytest.raises(WeightsError) as caught:
        read_checkpoint(path)
    message = str(caught.value)
    assert "conv_out.weight has shape (3, 8, 3, 3), expected (3, 16, 3, 3)" in message


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        (
            {"conv_in.weight": torch.zeros(16, 3, 3, 3).to_sparse()},
            "conv_in.weight is no",
        ),
        ({"conv_in.weight": torch.zeros(16, 3, 3, 3, dtype=torch.int32)}, "is no tensor of"),
        ({"conv_in.weight": torch.zeros(16, 3, 3, 3, dtype=torch.cfloat)}, "is no tensor of"),
        ({"module.conv_in.weight": torch.zeros(16, 3, 3, 3)}, "conv_in.weight is there twice"),
        ({f"body.{'9' * 5000}.body.0.x": torch.zeros(1)}, "unexpected 1: body.999"),
        ({"body.0.body.0.down.16_2.body.0.top.4.filt": torch.zeros(16, 1, 3, 3)}, "not the kernel"),
    ],
    ids=["sparse", "integers", "complex", "twice", "index", "kernel"],
)
def test_a_hostile_content_is_one_line(
    change: dict[str, torch.Tensor], reason: str, tmp_path: Path
) -> None:
    torch.save(published("mirnet") | change, tmp_path / "net.pth")
    with pytest.raises(WeightsError, match=reason):
        read_checkpoint(tmp_path / "net.pth")


def test_a_copy_that_is_missing_is_named(tmp_path: Path) -> None:
    state = published("mirnet")
    del state["body.0.body.0.blocks.1.1.body.0.weight"]
    torch.save(state, tmp_path / "net.pth")
    with pytest.raises(WeightsError, match=r"missing 1: body\.0\.body\.0\.blocks\.1\.1\.body\.0"):
        read_checkpoint(tmp_path / "net.pth")


def test_copies_that_disagree_are_named(tmp_path: Path) -> None:
    state = published("mirnet")
    key = "body.0.body.0.blocks.1.1.body.0.weight"
    state[key] = state[key] + 1
    torch.save(state, tmp_path / "net.pth")
    with pytest.raises(WeightsError, match=re.escape(f"{key} differs from the copy")):
        read_checkpoint(tmp_path / "net.pth")


def test_weights_that_are_not_finite_are_refused(tmp_path: Path) -> None:
    state = published("mirnet-v2")
    state["conv_in.weight"] = torch.full_like(state["conv_in.weight"], float("nan"))
    torch.save(state, tmp_path / "net.pth")
    with pytest.raises(WeightsError, match=r"conv_in\.weight is not finite"):
        read_checkpoint(tmp_path / "net.pth")


class Bomb:
    def __init__(self, target: Path) -> None:
        self.target = target

    def __reduce__(self) -> tuple[object, tuple[object, ...]]:
        return (Path.touch, (self.target,))


@pytest.mark.parametrize("as_zip", [True, False])
def test_a_hostile_file_runs_no_code(as_zip: bool, tmp_path: Path) -> None:
    path, mark = tmp_path / "net.pth", tmp_path / "ran"
    if as_zip:
        torch.save({"state_dict": Bomb(mark)}, path)
    else:
        path.write_bytes(pickle.dumps({"state_dict": Bomb(mark)}))
    with pytest.raises(WeightsError, match="not a checkpoint that is safe to read"):
        read_checkpoint(path)
    assert not mark.exists()


@pytest.mark.parametrize(
    "content", [b"", b"PK\x03\x04 not a zip", b"\x00" * 100, b"hello", b"\x80\x02."]
)
def test_files_that_are_no_checkpoint(content: bytes, tmp_path: Path) -> None:
    path = tmp_path / "net.pth"
    path.write_bytes(content)
    with pytest.raises(WeightsError) as caught:
        read_checkpoint(path)
    assert str(caught.value).startswith(str(path))
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    "content",
    [{"state_dict": {"a": 1}}, [1, 2], {"conv_in.weight": torch.zeros(16, 3, 3, 3)}, {}],
)
def test_checkpoints_of_something_else(content: object, tmp_path: Path) -> None:
    torch.save(content, tmp_path / "net.pth")
    with pytest.raises(
        WeightsError, match=r"net\.pth: (holds no state_dict|no .* or IAT or .* checkpoint)"
    ):
        read_checkpoint(tmp_path / "net.pth")
    with pytest.raises(WeightsError, match="no such file"):
        read_checkpoint(tmp_path / "absent.pth")


def test_the_command_makes_a_model_folder_and_an_enhancer_takes_the_file_as_well(
    tmp_path: Path,
) -> None:
    path = tmp_path / "net.pth"
    torch.save({"params": published("mirnet-v2", prefix="module.")}, path)
    target = tmp_path / "model"
    result = CliRunner().invoke(app, ["import", str(path), "--out", str(target)])
    assert result.exit_code == 0, result.output
    assert str(target) in "".join(result.output.split("\n"))
    pixels = np.random.default_rng(0).integers(0, 60, (37, 41, 3), dtype=np.uint8)
    by_folder, by_file = (
        Enhancer.load(source, precision="float32", compile=False) for source in (target, path)
    )
    assert by_folder.network.config == by_file.network.config
    assert np.array_equal(by_folder(pixels), by_file(pixels))
    model = read_checkpoint(path)
    low = torch.from_numpy(pixels)[None, :36, :40].permute(0, 3, 1, 2) / 255
    with torch.inference_mode():
        expected = Margined(model)(low)[0].permute(1, 2, 0).clamp(0, 1) * 255
    assert np.abs(by_file(pixels[:36, :40]) - expected.numpy()).max() <= 0.51
