"""Large sets on disk: the same pairs, decoded once, whole or not there."""

from __future__ import annotations

import pickle
import shutil

import numpy as np
import pytest
from pyarrow import fs

from mirnet.training.data import packs
from mirnet.training.data.packs import fetch_pack, open_pack, pack_on_disk, send_pack
from mirnet.training.job import Job
from mirnet.training.ray.job_transfer import receive_job, send_job
from mirnet.training.ray.shared_job import SharedJob, _share, _without_pixels


def _images(count):
    rng = np.random.default_rng(0)
    return {
        f"our485/{n}.png": tuple(rng.integers(0, 256, (2, 9 + n % 3, 8, 3), dtype=np.uint8))
        for n in range(count)
    }


def _loader(images, calls):
    def load(names):
        calls.append(tuple(names))
        return [images[name] for name in names]

    return load


def assert_pairs(packed, images):
    assert packed.names == tuple(images)
    for index, pair in enumerate(images.values()):
        for got, wanted in zip(packed.pair(index), pair, strict=True):
            np.testing.assert_array_equal(got, wanted)


def test_a_pack_gives_back_its_pairs_and_is_decoded_once(tmp_path):
    images, calls = _images(70), []
    packed = pack_on_disk(tuple(images), _loader(images, calls), tmp_path / "p")
    assert_pairs(packed, images)
    assert isinstance(packed.pixels, np.memmap)
    assert [len(names) for names in calls] == [32, 32, 6]  # never all in memory
    again = pack_on_disk(tuple(images), _loader(images, calls), tmp_path / "p")
    assert len(calls) == 3
    assert_pairs(again, images)


def test_a_pack_that_was_cut_off_is_made_again(tmp_path):
    images, calls = _images(40), []

    def dies(names):
        if calls:
            raise OSError("power cut")
        return _loader(images, calls)(names)

    with pytest.raises(OSError, match="power cut"):
        pack_on_disk(tuple(images), dies, tmp_path / "p")
    assert_pairs(pack_on_disk(tuple(images), _loader(images, []), tmp_path / "p"), images)


def test_a_pack_travels_in_shards_over_s3(s3, s3_server, tmp_path, monkeypatch):
    from mirnet.storage.arrow import PatientS3
    from mirnet.storage.s3session import S3Connection

    monkeypatch.setattr(packs, "SHARD_BYTES", 5_000)
    store, place = PatientS3(S3Connection(s3_server.endpoint_url)), s3.removeprefix("s3://") + "/p"
    images = _images(40)
    pack_on_disk(tuple(images), _loader(images, []), tmp_path / "here")
    send_pack(tmp_path / "here", store, place)
    names = [info.base_name for info in store.get_file_info(fs.FileSelector(place))]
    assert len([name for name in names if name.endswith(".bin")]) > 2
    assert_pairs(fetch_pack(store, place, tmp_path / "there"), images)
    store.delete_dir(place)
    assert_pairs(fetch_pack(store, place, tmp_path / "there"), images)  # it is on this disk
    assert_pairs(open_pack(tmp_path / "there"), images)


def test_a_job_with_packs_arrives_as_it_was_sent(small_params, tmp_path, monkeypatch):
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
    train, val = _images(5), {"our485/9.png": _images(1)["our485/0.png"]}
    job = Job(
        small_params(),
        pack_on_disk(tuple(train), _loader(train, []), tmp_path / "a"),
        pack_on_disk(tuple(val), _loader(val, []), tmp_path / "b"),
        "d1",
    )
    store = fs.LocalFileSystem()
    send_job(job, store, f"{tmp_path}/job", packs=f"{tmp_path}/packs")
    arrived = receive_job(store, f"{tmp_path}/job")
    assert_pairs(arrived.train, train)
    assert_pairs(arrived.val, val)


def test_training_from_a_pack_is_training_from_memory(train, small_params, in_process):
    memory = train(small_params(), in_process, run_name="memory")
    mapped = in_process.model_copy(update={"pack_above_gib": 0.0})
    disk = train(small_params(), mapped, run_name="disk")
    assert [m.train_loss for m in disk.history] == [m.train_loss for m in memory.history]
    assert len(list((in_process.workspace / "cache" / "packs").iterdir())) == 2


@pytest.mark.parametrize("shared", [False, True])
def test_workers_map_the_pack_of_their_node(small_params, settings, tmp_path, monkeypatch, shared):
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
    images, store = _images(5), fs.LocalFileSystem()
    packed = pack_on_disk(tuple(images), _loader(images, []), tmp_path / "cache" / "k")
    place = settings.model_copy(update={"ray_address": "10.0.0.1:6379" if shared else None})
    source = _share(packed, place, store, str(tmp_path / "store"))
    light = Job(small_params(), _without_pixels(packed), _without_pixels(packed), "d1")
    travelled = pickle.dumps(SharedJob(light, source, source))
    assert len(travelled) < 20_000  # no pixels in it
    if shared:
        shutil.rmtree(tmp_path / "cache")  # of another machine
    job = pickle.loads(travelled).open()
    assert_pairs(job.train, images)
    assert isinstance(job.val.pixels, np.memmap)
