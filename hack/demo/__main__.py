"""Start the command line from a path: `python hack/demo`; `make demo` does it."""

import sys
from pathlib import Path

# Run by path, Python puts this folder first, and its `requests` would hide the library of that name.
sys.path[0] = str(Path(__file__).resolve().parent.parent)

from demo.cli import main  # noqa: E402

if __name__ == "__main__":
    sys.exit(main())
