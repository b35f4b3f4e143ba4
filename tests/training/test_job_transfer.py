from __future__ import annotations

import numpy as np
import pytest
import torch
from pyarrow import fs

from mirnet.errors import TrainingError
from mirnet.training.checkpoints import copy_weights
from mirnet.training.data.pairs import pack_pairs
from mirnet.training.job import Job
from mirnet.training.ray.job_transfer import receive_job, send_job
from tests.training.everything import vgg


def _job(params, **changes):
    rng = np.random.default_rng(0)
    pairs = [tuple(rng.integers(0, 256, (2, 8 + i, 9, 3), dtype=np.uint8)) for i in range(3)]
    packed = pack_pairs(["our485/1.png", "our485/2.png", "our485/3.png"], pairs)
    one = pack_pairs(["our485/4.png"], pairs[:1])
    return Job(params=params, train=packed, val=one, digest="d", **changes)


def test_a_job_arrives_as_it_was_sent(small_params, tmp_path):
    params = small_params("train.loss={ssim: 0.5}")
    torch.manual_seed(0)
    net = params.model.config.build()
    local, path = fs.LocalFileSystem(), str(tmp_path / "job")
    send_job(_job(params, initial=copy_weights(net), teacher=net, features=vgg()), local, path)
    job = receive_job(local, path)
    assert job.params == params
    assert job.train.names == ("our485/1.png", "our485/2.png", "our485/3.png")
    for index in range(3):
        for got, sent in zip(job.train.pair(index), _job(params).train.pair(index), strict=True):
            np.testing.assert_array_equal(got, sent)
    assert job.initial is not None
    assert job.teacher is not None
    for key, value in copy_weights(net).items():
        torch.testing.assert_close(job.initial[key], value)
    image = torch.rand(1, 3, 16, 16)
    assert job.features is not None
    torch.testing.assert_close(job.features(image), vgg()(image))
    torch.testing.assert_close(job.teacher(image), net(image))


def test_what_is_there_already_is_not_sent_again(small_params, tmp_path):
    local, path = fs.LocalFileSystem(), str(tmp_path / "job")
    send_job(_job(small_params()), local, path)
    before = (tmp_path / "job" / "data.safetensors").stat().st_mtime_ns
    send_job(_job(small_params()), local, path)
    assert (tmp_path / "job" / "data.safetensors").stat().st_mtime_ns == before
    send_job(_job(small_params("train.seed=1")), local, path)
    assert receive_job(local, path).params.train.seed == 1


def test_a_store_that_is_not_shared_is_named(tmp_path):
    with pytest.raises(TrainingError, match=r"nothing.*MIRNET_STORAGE_URI"):
        receive_job(fs.LocalFileSystem(), str(tmp_path / "nothing"))
