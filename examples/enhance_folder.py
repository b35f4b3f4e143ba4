"""Enhance every image of a folder; format, bit depth, profile and metadata stay as they are.

    python examples/enhance_folder.py photos bright --model model

MODEL is a folder, a published checkpoint file, models:/NAME@ALIAS or base. `mirnet enhance` does
the same and more: it goes on where it stopped, checks the outputs and keeps a manifest.
"""

from __future__ import annotations

import argparse
from pathlib import Path

from mirnet import open_enhancer
from mirnet.errors import ImageError, MirnetError
from mirnet.images import decode, encode


def main() -> None:
    """Write each enhanced image under its own name; name the files that are no images."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("source", type=Path)
    parser.add_argument("target", type=Path)
    parser.add_argument("--model", help="the champion, or the model in the package before one")
    parser.add_argument("--strength", type=float, default=1.0, help="0 input, 1 network's output")
    options = parser.parse_args()

    try:
        enhancer = open_enhancer(options.model)
    except MirnetError as error:
        raise SystemExit(f"{parser.prog}: {error}") from None
    options.target.mkdir(parents=True, exist_ok=True)
    for path in sorted(path for path in options.source.iterdir() if path.is_file()):
        try:
            image = decode(path.read_bytes(), name=path.name)
        except ImageError as error:
            print(f"left out: {error}")
            continue
        enhanced = enhancer.enhance_image(image, options.strength)
        (options.target / path.name).write_bytes(encode(enhanced))
        height, width = image.pixels.shape[:2]
        print(f"{path.name}: {width}x{height}")


if __name__ == "__main__":
    main()
