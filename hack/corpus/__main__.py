"""`python hack/corpus --help`."""

import sys
from pathlib import Path

# Run by path, Python puts this folder first instead of the one that `corpus` lies in.
sys.path[0] = str(Path(__file__).resolve().parent.parent)

from corpus.cli import main  # noqa: E402

if __name__ == "__main__":
    sys.exit(main())
