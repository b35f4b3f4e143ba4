"""Which Ray a session works on."""

from __future__ import annotations

import pytest

from mirnet.errors import ServiceError


@pytest.mark.parametrize("address", ["127.0.0.1:1", "nowhere"])
def test_an_address_where_no_ray_answers_is_named(train, small_params, settings, address):
    dead = settings.model_copy(update={"ray_address": address})
    with pytest.raises(ServiceError, match=rf"Ray at {address} .*MIRNET_RAY_ADDRESS"):
        train(small_params(), dead)
