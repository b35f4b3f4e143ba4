"""The space: declared, checked before anything starts, and drawn in an order of the seed."""

from __future__ import annotations

from itertools import islice
from pathlib import Path

import pytest

from mirnet.errors import UsageError
from mirnet.params import load_params
from mirnet.search.space import (
    SearchSpace,
    check_space,
    configurations,
    configured,
    default_space,
    read_space,
)

BASE = load_params("cpu-mirnet")
SPACE = """
networks:
  mirnet-xs: {n_feat: [8, 16], num_rrg: [1, 2]}
  iat: {}
train:
  lr: {low: 0.001, high: 0.004}
  schedule: [cosine, two-cycle]
  loss: [null, {l1: 1}]
"""


def _file(folder: Path, text: str) -> Path:
    path = folder / "space.yaml"
    path.write_text(text)
    return path


def test_the_seed_fixes_the_configurations_and_the_first_is_the_default(tmp_path: Path) -> None:
    space = read_space(_file(tmp_path, SPACE))
    check_space(space, BASE)
    first, again, other = (
        list(islice(configurations(space, BASE, seed=seed), 12)) for seed in (3, 3, 4)
    )
    assert first == again != other
    assert first[0].params == configured(BASE, "mirnet-xs", {}, {}) == BASE
    assert len({c.params.model_dump_json() for c in first}) == 12
    drawn = [c.params for c in first[1:]]
    assert {p.model.name for p in drawn} == {"mirnet-xs", "iat"}
    assert all(0.001 <= p.train.lr <= 0.004 for p in drawn)
    assert {p.train.schedule for p in drawn} == {"cosine", "two-cycle"}


def test_an_exhausted_space_ends() -> None:
    space = SearchSpace(networks={"mirnet-xs": {"n_feat": (8, 16)}}, train={})
    # the default has 16 itself
    assert [c.label for c in configurations(space, BASE, seed=0)] == [
        "default (mirnet-xs)",
        "mirnet-xs n_feat=8",
    ]


def test_a_network_keeps_its_own_objective_unless_one_is_drawn_or_set() -> None:
    assert configured(BASE, "iat", {}, {}).train.loss == {"l1": 1.0}
    assert configured(BASE, "iat", {}, {"loss": None}).train.loss == {"l1": 1.0}
    assert configured(BASE, "iat", {}, {"loss": {"ssim": 1.0}}).train.loss == {"ssim": 1.0}
    own = load_params("cpu-mirnet", overrides=("train.loss={ssim: 0.5}",))
    assert configured(own, "iat", {}, {}).train.loss == {"ssim": 0.5}
    phased = load_params("cpu-mirnet", overrides=("model.name=retinexnet",))
    assert phased.train.phases and configured(phased, "iat", {}, {}).train.phases is None
    assert configured(BASE, "retinexnet", {}, {}).train.phases == phased.train.phases
    assert configured(phased, "retinexnet", {}, {"loss": {"l1": 1.0}}).train.phases is None


def test_patches_are_of_the_nearest_size_that_the_network_takes() -> None:
    assert configured(BASE, "zerodcepp", {}, {}).train.patch_size == 156


def test_phases_of_another_network_are_not_kept_but_their_absence_is() -> None:
    base = load_params("cpu-mirnet", overrides=("model.name=retinexnet-s",))
    assert configured(base, "sci", {}, {}).train.phases == {"self-calibrated": 1.0}
    assert configured(base, "mirnet-xs", {}, {}).train.phases is None
    joint = load_params("cpu-mirnet", overrides=("model.name=retinexnet-s", "train.phases=null"))
    assert configured(joint, "retinexnet-s", {}, {}).train.phases is None


def test_the_default_space_of_a_network_is_within_its_bounds() -> None:
    space = default_space(["mirnet-xs", "iat"])
    assert space.networks == {
        "mirnet-xs": {
            "n_feat": (8, 16, 32),
            "num_rrg": (1, 2),
            "num_msrb": (1, 2),
            "num_streams": (1, 3),
        },
        "iat": {"width": (8, 16, 32)},
    }
    check_space(space, BASE)


@pytest.mark.parametrize(
    ("text", "named"),
    [
        ("networks: {mirnet-xxs: {}}", "no network 'mirnet-xxs'"),
        ("networks: {mirnet-xs: {n_feat: [8, 4]}}", "n_feat"),
        ("networks: {mirnet-xs: {width: [8]}}", "unknown parameter model.width"),
        ("networks: {mirnet-xs: {n_feat: []}}", "mirnet-xs.n_feat: no values"),
        ("networks: {iat: {}}\ntrain: {loss: [{charbonier: 1}]}", "charbonier"),
        ("networks: {iat: {}}\ntrain: {loss: [{curve-smoothness: 1}]}", "curve-smoothness"),
        ("networks: {iat: {}}\ntrain: {lr: {low: 0.1, high: 2}}", "train.lr"),
        ("networks: {iat: {}}\ntrain: {lr: {low: 2, high: 0.1}}", "low is above high"),
        ("networks: {iat: {}}\ntrain: {seed: [1, 2]}", "train.seed is set by the search"),
        ("networks: {iat: {}}\ntrain: {learning_rate: [0.1]}", "train.learning_rate"),
        ("networks: {}", "networks"),
        ("[1, 2", "not YAML"),
        ("- 1", "space.yaml"),
    ],
)
def test_a_wrong_value_is_named_before_anything_starts(
    text: str, named: str, tmp_path: Path
) -> None:
    with pytest.raises(UsageError) as caught:
        check_space(read_space(_file(tmp_path, text)), BASE)
    assert named in str(caught.value) and "\n" not in str(caught.value)


def test_a_search_trains_from_scratch() -> None:
    base = load_params("cpu-mirnet", overrides=("train.init_from=base",))
    with pytest.raises(UsageError, match=r"train\.init_from"):
        check_space(default_space(["mirnet-xs"]), base)
