"""Which Ray a session works on."""

from __future__ import annotations

from pathlib import Path

import pytest
import ray

from mirnet import ray_session
from mirnet.errors import ServiceError


@pytest.mark.parametrize("address", ["127.0.0.1:1", "nowhere"])
def test_an_address_where_no_ray_answers_is_named(train, small_params, settings, address):
    dead = settings.model_copy(update={"ray_address": address})
    with pytest.raises(ServiceError, match=rf"Ray at {address} .*MIRNET_RAY_ADDRESS"):
        train(small_params(), dead)


def test_a_ray_that_does_not_start_is_one_line(settings, monkeypatch):
    """On a busy machine Ray gives up after 30 s, with an Exception of no type of its own."""
    folders: list[str] = []

    def fail(**options) -> None:
        folders.append(options["_temp_dir"])
        raise Exception("The current node timed out during startup.\nAnd more.")

    monkeypatch.setattr(ray, "init", fail)
    with (
        pytest.raises(ServiceError, match=r"did not start .*: The current node timed out .*\.$"),
        ray_session.ray_session(settings),
    ):
        pass
    assert not Path(folders[0]).exists()
