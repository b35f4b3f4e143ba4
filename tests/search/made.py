"""Plans and trials without a training."""

from __future__ import annotations

from typing import Any

from mirnet.params import Params, load_params
from mirnet.search.rows import EPOCHS, Plan, Point, Trial
from mirnet.search.space import SearchSpace

SPACE = SearchSpace(networks={"mirnet-xs": {"n_feat": (8, 16)}}, train={"lr": (0.001, 0.002)})


def values(params: Params) -> dict[str, Any]:
    return params.model_dump(by_alias=True, mode="json", exclude_unset=True)


def plan(**changes: Any) -> Plan:
    given: dict[str, Any] = {
        "name": "search-1",
        "digest": "d1",
        "base": values(load_params("cpu-mirnet")),
        "space": SPACE,
        "seed": 0,
        "threads": 1,
        "trial_s": 60.0,
        "train_ids": ("our485/1.png",),
        "val_ids": ("our485/2.png", "our485/3.png"),
    }
    return Plan(**(given | changes))


def trial(number: int, *psnr: float, **changes: Any) -> Trial:
    """Done if it has all its validations, else stopped."""
    points = tuple(Point(epoch=i, psnr=value, ssim=0.5) for i, value in enumerate(psnr, start=1))
    given: dict[str, Any] = {
        "number": number,
        "seed": 0,
        "label": f"drawn {number}",
        "values": values(load_params("cpu-mirnet")),
        "state": "done" if len(points) == EPOCHS else "stopped",
        "parameters": 1000,
        "gmac": 1.0 + number,
        "seconds_per_megapixel": 0.5,
        "steps": 40,
        "points": points,
    }
    return Trial(**(given | changes))
