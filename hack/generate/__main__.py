"""Write the generated files, or with --check tell how they differ: `python hack/generate [--check]`."""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]


def main(arguments: list[str] | None = None) -> int:
    """Run the command; 1 means that --check found a difference."""
    parser = argparse.ArgumentParser(
        prog="hack/generate", description="Write crds/ and the chart's copy of them."
    )
    parser.add_argument("--check", action="store_true", help="write nothing; exit 1 and show what differs")
    check = parser.parse_args(arguments).check
    sys.path.insert(0, str(ROOT))
    from hack.generate import files

    found = list(files.differences(ROOT, files.wanted_files()))
    for difference in found:
        if check:
            print(difference)
        else:
            files.write(ROOT, difference)
            print(
                f"wrote {difference.path}" if difference.wanted is not None else f"removed {difference.path}"
            )
    if check and found:
        print(f"{len(found)} generated files differ: run `make generate`", file=sys.stderr)
    return 1 if check and found else 0


if __name__ == "__main__":
    sys.exit(main())
