"""``python -m fedflair``: the command line."""

import sys

from fedflair.cli import main

# Processes that are spawned import this file too, under another name.
if __name__ == "__main__":
    sys.exit(main())
