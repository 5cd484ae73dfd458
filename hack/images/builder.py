"""Build images with buildah, and keep them as archives that container runtimes import."""

from __future__ import annotations

import contextlib
import dataclasses
import fcntl
import json
import os
import re
import subprocess
import tempfile
import textwrap
from pathlib import Path
from typing import TYPE_CHECKING

import base
import host
from progress import BuildError, run, say

if TYPE_CHECKING:
    from collections.abc import Iterator

    from recipe import Image

_KEPT_ARCHIVES = 3
_KEPT_LAYERS = 300
"""Images in buildah's storage, intermediate ones included, above which it starts anew."""

_STEP_WIDTH = 90


@dataclasses.dataclass(frozen=True)
class Built:
    """An image that is ready: the name that pods use, and its archive."""

    name: str
    reference: str
    archive: Path


def cache() -> Path:
    """Return the folder that outlives clones: base image, layers and archives."""
    override = os.environ.get("TRITON_OPERATOR_CACHE")
    if override:
        return Path(override).resolve() / "images"
    home = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache")
    return home / "triton-operator/images"


class Builder:
    """Builds into one cache folder; a lock lets one run at a time write to it."""

    def __init__(self, folder: Path, *, base_image: str | None) -> None:
        """Take a cache folder, and the base image unless it shall be made here."""
        self._folder = folder
        self._given_base = base_image
        self._base = base_image or base.reference()
        storage = folder / "storage"
        # state of running containers lies beside the storage: it must not outlive a reboot in /run only
        self._buildah = ["buildah", "--root", str(storage / "root"), "--runroot", str(storage / "run")]
        self._log = folder / "logs/build.log"

    def build(self, image: Image, *, output: Path | None) -> Built:
        """Return the image, from the cache when nothing it is made of has changed.

        Raises:
            BuildError: a step failed.
        """
        tag = image.tag(self._base)
        archive = (output or self._folder) / f"{image.name}-{tag}.tar"
        built = Built(image.name, image.reference(self._base), archive)
        with self._locked():
            if archive.is_file():
                say(f"{image.name}: unchanged ({tag})")
                os.utime(archive)
            else:
                self._make(image, built)
            self._drop_old_archives(image.name, archive.parent)
        return built

    def _make(self, image: Image, built: Built) -> None:
        host.require_programs(self._log)
        self._log = self._folder / f"logs/{image.name}.log"
        self._log.unlink(missing_ok=True)
        self._output("rm", "--all")  # containers of builds that were killed; the lock says nobody builds
        self._drop_old_layers()
        self._require_base()
        say(f"{image.name}: building {built.reference}")
        with tempfile.TemporaryDirectory(prefix="triton-operator-image-") as name:
            context = Path(name, "context")
            image.stage(context)
            settings = host.share_settings(Path(name, "settings"), downloads=self._folder / "pip")
            self._bud(context, image=image, built=built, settings=settings)
        self._export(built)
        say(f"{image.name}: {built.archive.stat().st_size / 1e6:.0f} MB in {built.archive}")

    def _bud(self, context: Path, *, image: Image, built: Built, settings: list[str]) -> None:
        command = [
            *(*self._buildah, "bud", "--layers", "--format", "docker"),
            *("--isolation", "chroot", "--network", "host"),
            *("--target", image.name, "--tag", built.reference),
            *("--build-arg", f"BASE_IMAGE={self._base}"),
            *("--build-arg", f"VERSION={built.reference.rpartition(':')[2]}"),
            *settings,
            str(context),
        ]
        run(command, log=self._log, title=f"building {image.name}", show=_step)

    def _export(self, built: Built) -> None:
        built.archive.parent.mkdir(parents=True, exist_ok=True)
        partial = built.archive.with_suffix(".partial")
        partial.unlink(missing_ok=True)
        target = f"docker-archive:{partial}:{built.reference}"
        run(
            [*self._buildah, "push", built.reference, target], log=self._log, title=f"writing {built.archive}"
        )
        partial.rename(built.archive)

    def _require_base(self) -> None:
        if self._given_base or self._has(self._base):
            return
        with base.made(self._folder / "base", log=self._log) as root:
            container = self._output("from", "scratch")
            try:
                self._output("add", container, str(root), "/")
                self._output("config", "--cmd", "/bin/bash", container)
                self._output("commit", "--format", "docker", container, self._base)
            finally:
                self._output("rm", container)

    def _has(self, reference: str) -> bool:
        command = [*self._buildah, "inspect", "--type", "image", reference]
        return subprocess.run(command, check=False, capture_output=True).returncode == 0

    def _output(self, *arguments: str) -> str:
        result = subprocess.run([*self._buildah, *arguments], check=False, capture_output=True, text=True)
        if result.returncode != 0:
            raise BuildError(f"buildah {arguments[0]} failed: {result.stderr.strip()}")
        return result.stdout.strip()

    def _drop_old_archives(self, name: str, folder: Path) -> None:
        archives = sorted(
            folder.glob(f"{name}-" + "[0-9a-f]" * 12 + ".tar"), key=lambda path: path.stat().st_mtime
        )
        for archive in archives[:-_KEPT_ARCHIVES]:
            archive.unlink()

    def _drop_old_layers(self) -> None:
        """Forget all layers when many have gathered: which of them are still of use, nothing tells."""
        listed = json.loads(self._output("images", "--all", "--json") or "[]") or []
        if len(listed) > _KEPT_LAYERS:
            say("layer cache: starting anew")
            self._output("rmi", "--all", "--force")

    @contextlib.contextmanager
    def _locked(self) -> Iterator[None]:
        self._folder.mkdir(parents=True, exist_ok=True)
        with (self._folder / ".lock").open("w") as lock:
            try:
                fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                say("waiting for another build to end")
                fcntl.flock(lock, fcntl.LOCK_EX)
            yield


def _step(line: str) -> str | None:
    """Shorten the lines with which buildah begins an instruction that takes time."""
    match = re.match(r"\[(\d+/\d+)\] STEP \S+ ((?:RUN|COPY) .*)", line)
    if match is None:
        return None
    instruction = " ".join(match[2].split())
    return f"stage {match[1]}: {textwrap.shorten(instruction, _STEP_WIDTH, placeholder=' …')}"
