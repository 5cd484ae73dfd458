"""Images: the pause image of our own, and archives that are imported into both nodes."""

import hashlib
import io
import json
import platform
import tarfile
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from urllib.parse import quote

from localcluster.builds import binary_path
from localcluster.command import run
from localcluster.errors import ClusterError
from localcluster.layout import PAUSE_IMAGE, Layout
from localcluster.nodes import NODES, Node
from localcluster.progress import step

ARCHITECTURES = {"x86_64": "amd64", "aarch64": "arm64"}
"""Names of machines as images know them."""


def write_pause_archive(layout: Layout) -> Path:
    """Write the image that holds each pod's network namespace open."""
    archive = layout.state / "pause.tar"
    write_archive(archive, image=PAUSE_IMAGE, program=binary_path(layout, "pause"))
    return archive


def write_archive(archive: Path, *, image: str, program: Path) -> None:
    """Write a docker-archive with one static program as its only file and entry point."""
    layer = _tar({program.name: program.read_bytes()}, mode=0o755)
    config = {
        "architecture": ARCHITECTURES.get(platform.machine(), platform.machine()),
        "os": "linux",
        "config": {"Entrypoint": [f"/{program.name}"], "User": "65535:65535"},
        "rootfs": {"type": "layers", "diff_ids": [f"sha256:{hashlib.sha256(layer).hexdigest()}"]},
    }
    manifest = [{"Config": "config.json", "RepoTags": [image], "Layers": ["layer.tar"]}]
    files = {
        "manifest.json": json.dumps(manifest).encode(),
        "config.json": json.dumps(config).encode(),
        "layer.tar": layer,
    }
    archive.write_bytes(_tar(files, mode=0o644))


def load(layout: Layout, archives: Sequence[Path]) -> None:
    """Import archives into both nodes, leaving out what a node already has."""
    named = {archive: names_in(archive) for archive in archives}
    for archive, names in named.items():
        with step(f"load {', '.join(names)}"), ThreadPoolExecutor() as pool:
            digest = _digest(archive)
            imports = [pool.submit(_import, layout, node, archive, names, digest) for node in NODES]
            for done in imports:
                done.result()


def names_in(archive: Path) -> list[str]:
    """Return the names of the images in a docker-archive."""
    remedy = "Make the archive so: `buildah push NAME docker-archive:FILE:NAME`."
    try:
        with tarfile.open(archive) as tar:
            manifest = tar.extractfile("manifest.json")
            images = json.load(manifest) if manifest else []
    except (OSError, tarfile.TarError, KeyError, ValueError) as unreadable:
        raise ClusterError(f"{archive} is no docker-archive: {unreadable}", remedy) from unreadable
    names = [name for image in images for name in image["RepoTags"] or []]
    if not names:
        raise ClusterError(f"The image in {archive} has no name.", remedy)
    return names


def _import(layout: Layout, node: Node, archive: Path, names: Sequence[str], digest: str) -> None:
    # One mark for each name: it holds the archive that the name came from last.
    marks = [node.folder(layout) / "imported" / quote(name, safe="") for name in names]
    if all(mark.exists() and mark.read_text() == digest for mark in marks):
        return
    client = ["ctr", "--address", str(node.containerd_socket(layout)), "--namespace", "k8s.io"]
    run([*client, "images", "import", str(archive)], remedy="Is the cluster healthy? See `status`.")
    for mark in marks:
        mark.parent.mkdir(exist_ok=True)
        mark.write_text(digest)


def _digest(archive: Path) -> str:
    with archive.open("rb") as content:
        return hashlib.file_digest(content, "sha256").hexdigest()


def _tar(files: dict[str, bytes], *, mode: int) -> bytes:
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w") as tar:
        for name, content in files.items():
            entry = tarfile.TarInfo(name)
            entry.size = len(content)
            entry.mode = mode
            tar.addfile(entry, io.BytesIO(content))
    return buffer.getvalue()
