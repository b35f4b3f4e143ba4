"""What the process does with freed feature maps."""

import ctypes
import subprocess
import sys

import pytest

SCRIPT = """
import resource, sys
import numpy as np, psutil, torch
from mirnet.inference import Enhancer
from mirnet.models import build
from mirnet.params import ModelParams

def pages():
    return resource.getrusage(resource.RUSAGE_SELF).ru_minflt

torch.set_num_threads(1)
enhancer = Enhancer(
    build(ModelParams(name="mirnet-xs", n_feat=8)), precision="float32", compile=False
)
# maps of 8 channels, 38 MB: above what glibc keeps by itself
low = np.zeros((1100, 1100, 3), np.uint8)
start = pages()
enhancer(low)
first, before = pages() - start, pages()
enhancer(low)
second = pages() - before
kept = psutil.Process().memory_info().rss
enhancer.max_pixels = 700 * 700
enhancer(low)
print(first, second, kept, psutil.Process().memory_info().rss)
"""


@pytest.mark.skipif(
    not hasattr(ctypes.CDLL(None), "gnu_get_libc_version"), reason="the allocator of glibc"
)
def test_freed_maps_are_used_again_and_given_back_after_a_large_image() -> None:
    done = subprocess.run([sys.executable, "-c", SCRIPT], check=True, stdout=subprocess.PIPE)
    first, second, kept, afterwards = map(int, done.stdout.split())
    assert second < first / 4
    assert afterwards < kept - 200 * 2**20
