"""What goes into each image, and the tag that follows from it."""

from __future__ import annotations

import dataclasses
import hashlib
import os
import shutil
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
"""The project's root: the build context of the Dockerfile."""

REGISTRY = "localhost/triton-operator"
"""Before an image's name. `localhost` keeps container runtimes from asking a registry for it."""

_TAG_LENGTH = 12
_LEFT_OUT = {"__pycache__", "dist", "build"}
_MODIFIED = 1_577_836_800
"""Every file's modification time in a build context: layers are cached by it."""


@dataclasses.dataclass(frozen=True)
class Image:
    """A target of the Dockerfile and the paths that its stages copy."""

    name: str
    paths: tuple[str, ...]

    def tag(self, base: str) -> str:
        """Return the hash of all that the image is made of; `base` names the base image."""
        digest = hashlib.sha256(base.encode())
        for path in self.files():
            relative = path.relative_to(ROOT).as_posix()
            content = hashlib.sha256(path.read_bytes()).hexdigest()
            digest.update(f"{relative}\0{content}\n".encode())
        return digest.hexdigest()[:_TAG_LENGTH]

    def reference(self, base: str) -> str:
        """Return the name under which pods ask for the image."""
        return f"{REGISTRY}/{self.name}:{self.tag(base)}"

    def files(self) -> list[Path]:
        """List the files that the image is made of, the Dockerfile first."""
        found = [ROOT / "Dockerfile"]
        for name in self.paths:
            path = ROOT / name
            found.extend(sorted(_walk(path)) if path.is_dir() else [path])
        return found

    def stage(self, context: Path) -> None:
        """Copy those files, and no others, into a folder that becomes the build context."""
        for path in self.files():
            target = context / path.relative_to(ROOT)
            target.parent.mkdir(parents=True, exist_ok=True)
            shutil.copyfile(path, target)
            target.chmod(0o755 if os.access(path, os.X_OK) else 0o644)
            os.utime(target, (_MODIFIED, _MODIFIED))


def _walk(folder: Path) -> list[Path]:
    files: list[Path] = []
    for entry in folder.iterdir():
        if entry.name in _LEFT_OUT or entry.name.startswith(".") or entry.suffix in {".pyc", ".egg-info"}:
            continue
        files.extend(_walk(entry) if entry.is_dir() else [entry])
    return files


_TRITON_CPU = ("images/triton-cpu", "locks/triton-cpu.txt")
_PLAN_HEADER = tuple(
    f"engine_builder/engine_builder/{name}.py"
    for name in ("__init__", "codec", "contract", "errors", "compilers/__init__", "compilers/plan_header")
)
"""What reads a plan's header, and all that it imports: a change elsewhere makes no new image."""

IMAGES = {
    image.name: image
    for image in (
        Image("operator", ("operator", "engine_builder", "locks/operator.txt", "locks/build.txt")),
        Image("engine-builder", ("engine_builder", "locks/engine-builder.txt", "locks/build.txt")),
        Image("triton-cpu", _TRITON_CPU),
        Image("tensorrt-rtx", ("locks/tensorrt-rtx.txt",)),
        Image(
            "triton-tensorrt-double",
            (*_TRITON_CPU, "tests/images/triton-tensorrt-double/tensorrt", *_PLAN_HEADER),
        ),
    )
}
"""Every image of the project, by name."""
