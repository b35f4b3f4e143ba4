"""Enhance a folder with Ray Data: one network per worker process, images in batches.

    python examples/ray_batch.py photos bright --model model --workers 2

Ray runs on this machine, or on the cluster of RAY_ADDRESS, whose nodes must see the same folders.
`mirnet enhance` with MIRNET_BATCH_ENGINE=ray does more: it reads and writes S3, goes on where it
stopped, checks the outputs and keeps a manifest.
"""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import Any

import ray.data

from mirnet import open_enhancer
from mirnet.errors import ImageError
from mirnet.images import decode, encode


class EnhanceFiles:
    """An actor: opens the network once, then enhances batches of files."""

    def __init__(self, model: str, target: str) -> None:
        self._enhancer = open_enhancer(model)
        self._target = Path(target)

    def __call__(self, batch: dict[str, Any]) -> dict[str, list[str]]:
        """Columns ``path`` and ``bytes`` of files -> one result per file."""
        files = zip(batch["path"], batch["bytes"], strict=True)
        return {"result": [self._enhance(Path(path).name, data) for path, data in files]}

    def _enhance(self, name: str, data: bytes) -> str:
        # ray.data.read_images would end the whole job at the first damaged file
        try:
            image = decode(data, name=name)
        except ImageError as error:
            return f"left out: {error}"
        (self._target / name).write_bytes(encode(self._enhancer.enhance_image(image)))
        return f"enhanced: {name}"


def main() -> None:
    """Print one line per file, in the order in which they end."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("source", type=Path)
    parser.add_argument("target", type=Path)
    parser.add_argument("--model", default="models:/mirnet@champion")
    parser.add_argument("--workers", type=int, default=1)
    parser.add_argument("--gpus", type=float, default=0, help="per worker")
    options = parser.parse_args()

    options.target.mkdir(parents=True, exist_ok=True)
    ray.init(include_dashboard=False, log_to_driver=False)
    ray.data.DataContext.get_current().enable_progress_bars = False
    # workers may have another working directory
    model = Path(options.model)
    address = str(model.resolve()) if model.exists() else options.model
    results = ray.data.read_binary_files(
        str(options.source.resolve()), include_paths=True
    ).map_batches(
        EnhanceFiles,
        fn_constructor_args=(address, str(options.target.resolve())),
        batch_size=16,
        compute=ray.data.ActorPoolStrategy(size=options.workers),
        num_cpus=1,
        num_gpus=options.gpus,
    )
    for row in results.iter_rows():
        print(row["result"])


if __name__ == "__main__":
    main()
