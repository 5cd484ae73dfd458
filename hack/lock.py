"""Write the files of locks/: `python3 hack/lock.py [--upgrade]`.

They name versions and hashes, no index: whoever installs from them takes the index that the machine is
configured with. `uv.lock` does name indexes, so it is an intermediate that git ignores.
"""

from __future__ import annotations

import argparse
import os
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path

import setup

ROOT, LOCKS = setup.ROOT, setup.LOCKS
_PLAIN = ("--quiet", "--no-header", "--no-annotate")
EXPORTS: Mapping[str, Sequence[str]] = {
    "dev.txt": (),
    "operator.txt": ("--package", "triton-operator", "--no-dev"),
    "engine-builder.txt": ("--package", "engine-builder", "--no-dev", "--all-extras"),
}
"""What is exported of the workspace, by file."""
COMPILED: Mapping[str, Sequence[str]] = {
    "build": ("--universal",),
    "uv": ("--universal",),
    "triton-cpu": ("--no-deps",),
    "tensorrt-rtx": ("--no-deps", "--constraint", str(LOCKS / "dev.txt")),
}
"""What stands outside the workspace: `<name>.in` becomes `<name>.txt`."""


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command line."""
    parser = argparse.ArgumentParser(prog="hack/lock.py", description="Write the files of locks/.")
    parser.add_argument("--upgrade", action="store_true", help="take the newest versions that are allowed")
    upgrade = ["--upgrade"] if parser.parse_args(arguments).upgrade else []
    try:
        uv, environment = setup.find_uv(), os.environ | setup.index_settings()
        setup.run([uv, "lock", "--quiet", "--project", str(ROOT), *upgrade], environment)
        for name, options in EXPORTS.items():
            _export(uv, LOCKS / name, options, environment)
        for name, options in COMPILED.items():
            _compile(uv, name, [*options, *upgrade], environment)
    except setup.SetupError as error:
        print(f"error: {error}", file=sys.stderr)
        return 1
    return 0


def _export(uv: str, target: Path, options: Sequence[str], environment: Mapping[str, str]) -> None:
    command = [uv, "export", "--frozen", "--project", str(ROOT), "--no-emit-workspace", *_PLAIN, *options]
    with setup.step(target.name):
        setup.run([*command, "--output-file", str(target)], environment)


def _compile(uv: str, name: str, options: Sequence[str], environment: Mapping[str, str]) -> None:
    command = [uv, "pip", "compile", "--generate-hashes", "--python-version", "3.11", *_PLAIN, *options]
    source, target = LOCKS / f"{name}.in", LOCKS / f"{name}.txt"
    with setup.step(target.name):
        setup.run([*command, "--no-emit-index-url", str(source), "--output-file", str(target)], environment)


if __name__ == "__main__":
    sys.exit(main())
