"""An even image stays even up to its border: no zero padding shows in what comes out."""

import numpy as np
import numpy.typing as npt
import pytest
import torch
from torch import nn

from mirnet.images import Image
from mirnet.inference import Enhancer
from mirnet.models import Network, build
from mirnet.models.margin import Margined

Pixels = npt.NDArray[np.uint16]
NETWORKS = [("mirnet-xs", 8), ("mirnet-v2", 16)]
LIGHT = 6000
SIZES = {"whole": (48, 66), "batched": (41, 50), "one pixel wide": (60, 1), "tiled": (230, 46)}


@pytest.fixture(scope="module", autouse=True)
def _one_thread() -> None:
    torch.set_num_threads(1)


def brightening(name: str, n_feat: int) -> Network:
    """A network whose output is several times as bright as its input, whatever it is given."""
    torch.manual_seed(0)
    model = build(name, n_feat=n_feat, num_rrg=1, num_msrb=1).eval()
    with torch.no_grad():
        for module in model.modules():
            if isinstance(module, nn.Conv2d | nn.ConvTranspose2d) and module.kernel_size[0] > 1:
                module.weight.abs_()  # all of one sign: what padding leaves out is missed
        even = torch.full((1, 3, 64, 64), LIGHT / 65535)
        added = (model(even) - even)[0, :, 28:36, 28:36].mean()
        model.conv_out.weight.mul_(even.mean() * 4 / added)
    return model


def even(height: int, width: int) -> Pixels:
    return np.full((height, width, 3), LIGHT, np.uint16)


def enhanced(model: Network, way: str) -> Pixels:
    enhancer = Enhancer(model, precision="float32", compile=False)
    picture = even(*SIZES[way])
    if way == "batched":
        enhancer.fix_shapes([SIZES[way]])
        assert enhancer.batch_size(*SIZES[way]) > 1
        return enhancer.enhance_images([Image(picture)] * 2)[1].pixels  # type: ignore[return-value]
    if way == "tiled":
        enhancer.max_pixels = 200 * 80
        assert enhancer.tile_shape(*SIZES[way])
    return enhancer(picture)


def off(picture: npt.NDArray[np.floating | np.uint16]) -> float:
    """How far the mean of a side's outermost row is from the middle, of what the network adds."""
    height, width = picture.shape[:2]
    middle = picture[height // 2, width // 2].astype(float)
    sides = [picture[0], picture[-1], picture[:, 0], picture[:, -1]]
    return max(
        float((np.abs(side.mean(axis=0) - middle) / (middle - LIGHT)).max()) for side in sides
    )


@pytest.mark.parametrize("way", SIZES)
@pytest.mark.parametrize(("name", "n_feat"), NETWORKS)
def test_an_even_picture_stays_even(name: str, n_feat: int, way: str) -> None:
    model = brightening(name, n_feat)
    assert off(enhanced(model, way)) < 0.05
    with torch.no_grad():
        bare = model(torch.full((1, 3, 48, 64), LIGHT / 65535))[0].permute(1, 2, 0) * 65535
    assert off(bare.numpy()) > 0.2, "so that the test can fail"


@pytest.mark.parametrize("sides", [(8, 8), (48, 64)])
@pytest.mark.parametrize(("name", "n_feat"), NETWORKS)
def test_so_does_the_form_that_is_exported(name: str, n_feat: int, sides: tuple[int, int]) -> None:
    """Exports give what it gives, at (8, 8) as well: tests/models/test_export.py."""
    with torch.no_grad():
        out = Margined(brightening(name, n_feat))(torch.full((1, 3, *sides), LIGHT / 65535))
    assert off(out[0].permute(1, 2, 0).numpy() * 65535) < 0.05


def smooth(count: int, height: int, width: int, seed: int) -> torch.Tensor:
    """(count, 3, height, width) in [0.2, 0.8]: images that go on beyond their border."""
    coarse = torch.rand(count, 3, 6, 8, generator=torch.Generator().manual_seed(seed))
    large = nn.functional.interpolate(coarse, (height + 32, width + 32), mode="bicubic")
    return 0.2 + 0.6 * large[:, :, 16:-16, 16:-16].clamp(0, 1)


def trained(steps: int) -> Network:
    """Made by a few steps of brightening tenfold, as any recipe begins."""
    torch.manual_seed(0)
    model = build("mirnet-xs", n_feat=8, num_rrg=1, num_msrb=1)
    optimizer = torch.optim.Adam(model.parameters(), lr=3e-3)
    for step in range(steps):
        bright = smooth(4, 64, 64, seed=step)
        loss = (model(bright / 10) - bright).abs().mean()
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    return model.eval()


def ring(picture: npt.NDArray[np.floating], depth: int) -> float:
    inner = picture[depth : len(picture) - depth, depth : picture.shape[1] - depth].copy()
    inner[1:-1, 1:-1] = np.nan
    return float(np.nanmean(inner))


@pytest.mark.slow
def test_a_trained_network_leaves_no_frame() -> None:
    """Ring 0 over ring 16, each over the reference's, as a mean of 40 images."""
    model = trained(100)
    enhancer = Enhancer(model, precision="float32", compile=False)
    framed: list[float] = []
    bare: list[float] = []
    for bright in smooth(40, 96, 128, seed=10**6):
        reference = bright.permute(1, 2, 0).numpy()
        dark = np.round(reference / 10 * 65535).astype(np.uint16)
        with torch.no_grad():
            alone = model(bright[None] / 10)[0].permute(1, 2, 0).numpy()
        for output, ratios in ((enhancer(dark) / 65535, framed), (alone, bare)):
            outer, inside = (ring(output, d) / ring(reference, d) for d in (0, 16))
            ratios.append(outer / inside)
    assert abs(np.mean(framed) - 1) < 0.03
    assert abs(np.mean(bare) - 1) > 0.1, "so that the test can fail"
