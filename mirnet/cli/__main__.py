"""``python -m mirnet.cli``."""

from mirnet.cli import main

main()
