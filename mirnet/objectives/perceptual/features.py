"""VGG networks: Simonyan and Zisserman, Very Deep Convolutional Networks for Large-Scale Image
Recognition, ICLR 2015. Their convolutions alone, with the tensors named as in torchvision.
"""

from __future__ import annotations

import itertools
import re
from collections.abc import Mapping
from pathlib import Path

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from mirnet.errors import WeightsError
from mirnet.models.published import read_state

BLOCKS = 4
# of the training images in torchvision
_MEAN, _DEVIATION = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)


class VGG(nn.Module):
    """Features at the end of the first four blocks, before their activation. It is not trained.

    Args:
        shapes: output and input channels of each convolution, by its number in torchvision. Between
            two of a block there is an activation, between blocks a pooling as well.
    """

    def __init__(self, shapes: Mapping[int, tuple[int, int]]) -> None:
        super().__init__()
        self.numbers = sorted(shapes)
        convs = {str(n): nn.Conv2d(shapes[n][1], shapes[n][0], 3, padding=1) for n in shapes}
        self.features = nn.ModuleDict(convs)
        self.requires_grad_(False)

    def forward(self, image: Tensor) -> list[Tensor]:
        """(N, 3, H, W), in [0, 1] where an image is displayed."""
        mean, deviation = (image.new_tensor(v)[:, None, None] for v in (_MEAN, _DEVIATION))
        x = (image - mean) / deviation
        found = []
        for number, following in itertools.pairwise([*self.numbers, None]):
            assert number is not None
            x = self.features[str(number)](x)
            if following is None or following - number == 3:
                found.append(x)
                x = F.max_pool2d(F.relu(x), 2)
            else:
                x = F.relu(x)
        return found


def vgg_of(state: Mapping[str, Tensor], *, origin: str) -> VGG:
    """The network of these weights; the classifier is left out.

    Raises:
        WeightsError: they are not those of a VGG without batch normalisation; names the origin.
    """
    shapes = {}
    for name, value in state.items():
        match = re.fullmatch(r"features\.(\d{1,3})\.weight", name)
        if match:
            shapes[int(match[1])] = tuple(value.shape)
    numbers = sorted(shapes)
    steps = [after - before for before, after in itertools.pairwise(numbers)]
    ends = [n for n, step in zip(numbers, [*steps, 3], strict=True) if step == 3]
    last = ends[BLOCKS - 1] if len(ends) >= BLOCKS else -1
    used = [number for number in numbers if number <= last]
    outputs = [3, *(shapes[n][0] if shapes[n] else 0 for n in used)]
    wanted = [(out, given, 3, 3) for given, out in itertools.pairwise(outputs)]
    biases = [state.get(f"features.{number}.bias") for number in used]
    plain = numbers[:1] == [0] and set(steps) <= {2, 3} and [shapes[n] for n in used] == wanted
    whole = all(
        b is not None and b.shape == shapes[n][:1] for n, b in zip(used, biases, strict=True)
    )
    if not (used and plain and whole):
        raise WeightsError(
            f"{origin}: no VGG network with the names of torchvision (features.0.weight, ...), "
            f"without batch normalisation and with at least {BLOCKS} blocks"
        )
    network = VGG({n: (shapes[n][0], shapes[n][1]) for n in used})
    with torch.no_grad():
        for name, parameter in network.named_parameters():
            parameter.copy_(state[name])
    return network


def read_vgg(path: Path) -> VGG:
    """The network of a file, safetensors or a state dict of PyTorch, which runs no code.

    Raises:
        WeightsError: it cannot be read, or is of another network; names the file.
    """
    return vgg_of(read_state(path), origin=str(path))
