"""Start the command line from a path: `python3 hack/localcluster COMMAND`."""

import sys
from pathlib import Path

# Run by path, Python puts this folder first: its modules would hide others, and there would be no package.
sys.path[0] = str(Path(__file__).resolve().parent.parent)

from localcluster.cli import main  # noqa: E402

if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
