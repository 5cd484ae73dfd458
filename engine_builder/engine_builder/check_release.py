"""The release gate: refuse to start a Triton whose TensorRT didn't build the plans of its tree.

TensorRT runs no plan of another build, and Triton would start all the same, without the models. The operator
hands the text of this file to the Python of Triton's own image, in an init container: so it imports the
standard library alone, and a change of it replaces the pods of all servers with GPUs, once.

Exit code 10 refuses. What can't be compared (no TensorRT here, no tree yet) is said, and the pod starts.
"""

from __future__ import annotations

import contextlib
import ctypes
import json
import os
import re
import sys
from pathlib import Path

REFUSED = 10
CANDIDATE = ".candidate"
"""Models so named are loaded by no pod at its start."""

_BACKEND = Path("/opt/tritonserver/backends/tensorrt/libtriton_tensorrt.so")
_MAJORS = range(1, 32)
_PARTS = ("Major", "Minor", "Patch", "Build")
_FOLDERS = ("/usr/lib/*-linux-gnu", "/usr/lib64", "/usr/local/lib", "/usr/local/tensorrt/lib")
_MOST_NAMED = 3
_MESSAGE_BYTES = 2048


def plans(tree: Path) -> dict[str, str]:
    """Return the plans that pods load from a tree when they start: engine → TensorRT that built it."""
    found = {}
    for version in sorted(tree.glob("*/[1-9]*")):
        if version.parent.name.endswith(CANDIDATE):
            continue
        # An entry that isn't whole is Triton's to refuse.
        with contextlib.suppress(OSError, ValueError, KeyError):
            manifest = json.loads((version / "MANIFEST").read_text())
            if manifest.get("tensorrt"):
                found[manifest["engine"]] = manifest["tensorrt"]
    return found


def libraries(backend: Path = _BACKEND) -> dict[str, str]:
    """Return the TensorRT that Triton finds here, as library → version (three numbers, or four)."""
    found = {name: _asked(name) or _file_version(name) for name in _names(backend)}
    return {name: version for name, version in found.items() if version}


def _names(backend: Path) -> list[str]:
    """Return the name under which Triton's backend asks for TensorRT, or all that it can have."""
    with contextlib.suppress(OSError):
        named = re.findall(rb"libnvinfer\.so\.[0-9]+", backend.read_bytes())
        if named:
            return sorted({name.decode() for name in named})
    return [f"libnvinfer.so.{major}" for major in _MAJORS]


def _asked(name: str) -> str:
    """Return the version that a library says it is, or nothing; loaded in a child, as it may crash."""
    reader, writer = os.pipe()
    child = os.fork()
    if child == 0:
        try:
            library = ctypes.CDLL(name)
            numbers = [getattr(library, f"getInferLib{part}Version")() for part in _PARTS]
            os.write(writer, ".".join(map(str, numbers)).encode())
        finally:
            os._exit(0)
    os.close(writer)
    with os.fdopen(reader) as answer:
        version = answer.read()
    os.waitpid(child, 0)
    return version


def _file_version(name: str) -> str:
    """Return the version in the name of the library's file, as one that can't be loaded here has it too."""
    folders = [Path(folder) for folder in os.environ.get("LD_LIBRARY_PATH", "").split(":") if folder]
    folders += [folder for pattern in _FOLDERS for folder in Path("/").glob(pattern.lstrip("/"))]
    for folder in folders:
        for file in sorted(folder.glob(f"{name}.*")):
            return file.name.partition(".so.")[2]
    return ""


def fits(plan: str, library: str) -> bool:
    """Tell whether two versions are the same, as far as both are known."""
    return all(one == other for one, other in zip(plan.split("."), library.split("."), strict=False))


def verdict(built: dict[str, str], here: dict[str, str]) -> tuple[int, str]:
    """Return exit code and message. One odd plan refuses: pods that serve it may be about to be replaced."""
    if not built:
        return 0, "no plan of TensorRT in the tree: nothing to compare"
    if not here:
        return 0, "this image has no libnvinfer: the plans of the tree were not compared"
    odd = {engine: version for engine, version in sorted(built.items()) if not _runs(version, here)}
    image = ", ".join(f"TensorRT {version} ({name})" for name, version in here.items())
    if not odd:
        return 0, f"this image has {image}, as the plans of the tree need"
    named = ", ".join(f"{engine} ({version})" for engine, version in list(odd.items())[:_MOST_NAMED])
    more = f" and {len(odd) - _MOST_NAMED} more" if len(odd) > _MOST_NAMED else ""
    return REFUSED, f"the image has {image}, and these engines were built with another: {named}{more}"


def _runs(version: str, here: dict[str, str]) -> bool:
    return any(fits(version, library) for library in here.values())


def main(tree: str, termination_log: str) -> int:
    """Compare, say what was found, and return the exit code."""
    built = plans(Path(tree))
    code, message = verdict(built, libraries() if built else {})
    print(message, flush=True)
    with contextlib.suppress(OSError):
        Path(termination_log).write_text(message[:_MESSAGE_BYTES])
    return code


if __name__ == "__main__":
    sys.exit(main(*sys.argv[1:]))
