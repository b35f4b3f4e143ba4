"""The published architectures, reproduced on vectors that live outside the repository."""

from pathlib import Path

import numpy as np
import pytest
import torch

from mirnet.models import load_model, read_checkpoint, save_model

GOLDEN = Path(__file__).parents[2].parent / "shared" / "golden"

pytestmark = pytest.mark.skipif(not GOLDEN.is_dir(), reason="no golden vectors beside the project")


@pytest.mark.parametrize("name", ["mirnet_v1_nfeat16_rrg2_msrb1", "mirnet_v2_nfeat16_mrb1"])
def test_published_output(name: str, tmp_path: Path) -> None:
    model = read_checkpoint(GOLDEN / f"{name}.pth")
    vectors = np.load(GOLDEN / f"{name}_io.npz")
    with torch.inference_mode():
        out = model(torch.from_numpy(vectors["x"]))
    np.testing.assert_allclose(out.numpy(), vectors["y"], atol=1e-4, rtol=0)
    again = load_model(save_model(model, tmp_path / "model"))
    with torch.inference_mode():
        assert torch.equal(again(torch.from_numpy(vectors["x"])), out)
