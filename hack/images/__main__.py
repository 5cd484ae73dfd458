"""Build the project's images: `python3 hack/images build [NAME …]`.

Needs the standard library only, since it sets up a fresh machine. Prints `name=reference archive` for
each image on stdout, or JSON with `--json`; progress goes to stderr.
"""

from __future__ import annotations

import argparse
import json
import signal
import sys
from pathlib import Path

from builder import Builder, Built, cache
from progress import BuildError
from recipe import IMAGES


def main() -> int:
    """Run the command line; 1 is a build that failed."""
    arguments = _parser().parse_args()
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(128 + signal.SIGTERM))  # lets what runs be ended
    builder = Builder(cache(), base_image=arguments.base_image)
    try:
        _check_names(arguments.names)
        built = [builder.build(IMAGES[name], output=arguments.output) for name in arguments.names or IMAGES]
    except BuildError as error:
        print(f"error: {error}", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        return 130
    _print(built, as_json=arguments.json)
    return 0


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="python3 hack/images", description="Build the project's images.")
    commands = parser.add_subparsers(dest="command", required=True)
    build = commands.add_parser("build", help="build what has changed, and print where it is")
    build.add_argument("names", nargs="*", metavar="NAME", help=f"any of: {', '.join(IMAGES)} (default: all)")
    build.add_argument("--output", type=Path, help="folder for the archives (default: the cache)")
    build.add_argument("--json", action="store_true", help="print JSON")
    build.add_argument("--base-image", help="build on this image instead of a Debian made by debootstrap")
    return parser


def _check_names(names: list[str]) -> None:
    unknown = [name for name in names if name not in IMAGES]
    if unknown:
        raise BuildError(f"there is no image {', '.join(unknown)}; there are: {', '.join(IMAGES)}")


def _print(built: list[Built], *, as_json: bool) -> None:
    if as_json:
        found = {image.name: {"reference": image.reference, "archive": str(image.archive)} for image in built}
        print(json.dumps(found, indent=2))
        return
    for image in built:
        print(f"{image.name}={image.reference} {image.archive}")


if __name__ == "__main__":
    sys.exit(main())
