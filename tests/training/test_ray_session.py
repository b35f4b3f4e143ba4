"""Which Ray a session works on."""

from __future__ import annotations

import pytest

from mirnet.errors import ServiceError


def test_an_address_where_no_ray_answers_is_named(train, small_params, settings):
    dead = settings.model_copy(update={"ray_address": "127.0.0.1:1"})
    with pytest.raises(ServiceError, match=r"127\.0\.0\.1:1 .*MIRNET_RAY_ADDRESS"):
        train(small_params(), dead)
