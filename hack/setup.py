"""Make the virtual environment with everything that the make targets use: `python3 hack/setup.py .venv`.

Needs the standard library only, since it sets up a fresh machine. Packages come from `locks/dev.txt`, by
hash, from whatever index pip or uv is configured with on this machine. A stamp in the
environment makes the second run instantaneous.
"""

from __future__ import annotations

import hashlib
import os
import shutil
import subprocess
import sys
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
LOCKS = ROOT / "locks"
PACKAGES = ("operator", "engine_builder")
OLDEST = (3, 11)
_CHECK_VERSION = f"import sys; sys.exit(sys.version_info[:2] < {OLDEST})"


class SetupError(Exception):
    """The environment cannot be made; the message says what to do."""


def main(arguments: Sequence[str]) -> int:
    """Make the environment in the folder that is given; return the exit status."""
    folder = Path(arguments[0] if arguments else ".venv").absolute()
    try:
        make_environment(folder)
    except SetupError as error:
        print(f"error: {error}", file=sys.stderr)
        return 1
    return 0


def make_environment(folder: Path) -> None:
    """Install what the locks say, unless that is what the folder holds already."""
    stamp, wanted = folder / ".installed", wanted_content()
    if stamp.exists() and stamp.read_text() == wanted:
        return
    python = folder / "bin" / "python"
    environment = os.environ | index_settings()
    with step("uv"):
        uv = find_uv()
    if not runs([str(python), "-c", _CHECK_VERSION]):
        with step(f"environment in {folder.name}"):
            run([uv, "venv", "--quiet", "--clear", "--python", find_python(), str(folder)], environment)
    install = [uv, "pip", "--quiet"]
    with step("packages of locks/dev.txt"):
        lock = str(LOCKS / "dev.txt")
        run([*install, "sync", "--python", str(python), "--require-hashes", lock], environment)
    with step("our own packages, editable"):
        own = [argument for package in PACKAGES for argument in ("--editable", str(ROOT / package))]
        constraints = ["--build-constraints", str(LOCKS / "build.txt")]
        run([*install, "install", "--python", str(python), "--no-deps", *constraints, *own], environment)
    stamp.write_text(wanted)


def wanted_content() -> str:
    """Return a digest of everything that decides what the environment holds, and where it points."""
    digest = hashlib.sha256(str(ROOT).encode())
    projects = [ROOT / package / "pyproject.toml" for package in PACKAGES]
    for path in (LOCKS / "dev.txt", LOCKS / "build.txt", *projects):
        digest.update(path.read_bytes())
    return digest.hexdigest()


def find_python() -> str:
    """Return a Python that is new enough: this one, else a newer one of the PATH."""
    names = ("python3.14", "python3.13", "python3.12", "python3.11")
    for candidate in (sys.executable, *names):
        if runs([candidate, "-c", _CHECK_VERSION]):
            return candidate
    raise SetupError(f"Python {'.'.join(map(str, OLDEST))} or later is needed: install it (python3.11)")


def find_uv() -> str:
    """Return uv: the one of the PATH, else one that pip installs into an environment of its own."""
    found = shutil.which("uv")
    if found and runs([found, "--version"]):
        return found
    home = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache")
    own = Path(os.environ.get("TRITON_OPERATOR_CACHE") or home / "triton-operator") / "uv"
    if not runs([str(own / "bin" / "uv"), "--version"]):
        _install_uv(own)
    return str(own / "bin" / "uv")


def _install_uv(folder: Path) -> None:
    python = find_python()
    if not runs([python, "-c", "import ensurepip"]):
        _install_venv_module()
    run([python, "-m", "venv", "--clear", str(folder)], os.environ)
    pip = [str(folder / "bin" / "python"), "-m", "pip", "--disable-pip-version-check", "--quiet", "install"]
    run([*pip, "--require-hashes", "--requirement", str(LOCKS / "uv.txt")], os.environ)


def _install_venv_module() -> None:
    """Install Debian's python3-venv, which Debian leaves out of python3."""
    advice = "install it (Debian and Ubuntu: `apt-get install python3-venv`), or install uv, then try again"
    if os.geteuid() != 0 or shutil.which("apt-get") is None:
        raise SetupError(f"this Python has no `venv` module: {advice}")
    environment = os.environ | {"DEBIAN_FRONTEND": "noninteractive"}
    run(["apt-get", "-qq", "update"], environment)
    run(["apt-get", "-qq", "--yes", "--no-install-recommends", "install", "python3-venv"], environment)


def index_settings() -> Mapping[str, str]:
    """Return for uv the index that pip is configured with: uv does not read pip's configuration."""
    if any(os.environ.get(name) for name in ("UV_DEFAULT_INDEX", "UV_INDEX_URL", "UV_CONFIG_FILE")):
        return {}
    index = os.environ.get("PIP_INDEX_URL") or _pip_setting("global.index-url")
    return {"UV_DEFAULT_INDEX": index} if index else {}


def _pip_setting(name: str) -> str:
    command = [sys.executable, "-m", "pip", "config", "get", name]
    found = subprocess.run(command, capture_output=True, text=True, check=False)
    return found.stdout.strip() if found.returncode == 0 else ""


def runs(command: Sequence[str]) -> bool:
    """Tell whether a program is there and ends well."""
    try:
        return subprocess.run(command, capture_output=True, check=False).returncode == 0
    except OSError:
        return False


def run(command: Sequence[str], environment: Mapping[str, str]) -> None:
    """Run a program with its output on the terminal."""
    if subprocess.run(command, env=environment, check=False).returncode != 0:
        raise SetupError(f"`{' '.join(command)}` failed; its output stands above")


@contextmanager
def step(name: str) -> Iterator[None]:
    """Say how long a step took."""
    began = time.monotonic()
    yield
    print(f"  setup: {name:<40} {time.monotonic() - began:6.1f} s", file=sys.stderr, flush=True)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
