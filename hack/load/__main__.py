"""The process that sends: a pickled plan on stdin, a line of JSON for each answer on stdout.

`load.running` starts it and reads what it writes. It ends when its stdin does.
"""

import sys
from pathlib import Path

# Run by path, Python puts this folder first instead of the one that `load` lies in.
sys.path[0] = str(Path(__file__).resolve().parent.parent)

from load.generator import main  # noqa: E402

if __name__ == "__main__":
    main()
