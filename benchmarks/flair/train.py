"""``python -m flair.train``: the same as ``fedflair train``, under the name in the dataset's documentation."""

from __future__ import annotations

import sys

from fedflair.cli import main

if __name__ == "__main__":
    sys.exit(main(["train", *sys.argv[1:]]))
