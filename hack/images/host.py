"""What this machine gives to a build: programs, pip's settings, apt's mirror and proxy."""

from __future__ import annotations

import configparser
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

from progress import BuildError, run

_PACKAGES = {"buildah": "buildah", "debootstrap": "debootstrap"}
_MOUNT = "/run/build"
_DOWNLOADS = "/run/pip"
_CERTIFICATES = ("REQUESTS_CA_BUNDLE", "CURL_CA_BUNDLE", "SSL_CERT_FILE")
_SYSTEM_CERTIFICATES = "/etc/ssl/certs/ca-certificates.crt"
_DEFAULT_MIRROR = "http://deb.debian.org/debian"
_DEFAULT_SECURITY = "http://deb.debian.org/debian-security"


def require_programs(log: Path) -> None:
    """Check that this is a root's Linux, and install the programs that are missing.

    Raises:
        BuildError: with what is needed instead.
    """
    if sys.platform != "linux" or os.geteuid() != 0:
        raise BuildError(
            "images are built on Linux, as root: buildah and debootstrap change root directories"
        )
    missing = [package for program, package in _PACKAGES.items() if shutil.which(program) is None]
    if not missing:
        return
    if shutil.which("apt-get") is None:
        raise BuildError(f"please install: {', '.join(missing)}")
    apt = ["apt-get", "-o", "DPkg::Lock::Timeout=300"]
    run([*apt, "update"], log=log, title="apt-get update")
    run(
        [*apt, "install", "--yes", "--no-install-recommends", *missing],
        log=log,
        title=f"installing {', '.join(missing)}",
    )


def share_settings(folder: Path, *, downloads: Path) -> list[str]:
    """Copy this machine's settings of pip to `folder`, which the build then sees.

    Args:
        folder: is made, and holds what the settings name too: certificates, folders of wheels.
        downloads: keeps what pip downloaded for the next build.

    Returns:
        buildah's arguments that mount both and tell the Dockerfile.
    """
    folder.mkdir(parents=True)
    downloads.mkdir(parents=True, exist_ok=True)
    _write_pip_settings(folder)
    mounts = ["--volume", f"{folder}:{_MOUNT}:ro", "--volume", f"{downloads}:{_DOWNLOADS}"]
    return [*mounts, "--build-arg", f"PIP_CONFIG_FILE={_MOUNT}/pip.conf"]


def _write_pip_settings(folder: Path) -> None:
    settings = _pip_settings()
    candidates = [*(os.environ.get(name, "") for name in _CERTIFICATES), _SYSTEM_CERTIFICATES]
    certificates = next((path for path in candidates if Path(path).is_file()), None)
    if certificates:
        settings.setdefault("cert", certificates)
    parser = configparser.RawConfigParser()
    parser["global"] = {name: _shared(value, folder) for name, value in settings.items()}
    parser["global"]["cache-dir"] = _DOWNLOADS
    with (folder / "pip.conf").open("w", encoding="utf-8") as file:
        parser.write(file)
    (folder / "pip.conf").chmod(0o600)  # an index URL may carry a password


def _pip_settings() -> dict[str, str]:
    """Merge pip's configuration files and environment as pip itself does, the strongest last."""
    home = Path.home()
    paths = [
        Path("/etc/xdg/pip/pip.conf"),
        Path("/etc/pip.conf"),
        home / ".pip/pip.conf",
        Path(os.environ.get("XDG_CONFIG_HOME") or home / ".config") / "pip/pip.conf",
    ]
    if os.environ.get("PIP_CONFIG_FILE"):
        paths.append(Path(os.environ["PIP_CONFIG_FILE"]))
    settings: dict[str, str] = {}
    for path in paths:
        parser = configparser.RawConfigParser()
        parser.read(path, encoding="utf-8")
        for section in ("global", "install"):
            if parser.has_section(section):
                settings |= dict(parser.items(section))
    for name, value in os.environ.items():
        if name.startswith("PIP_") and name != "PIP_CONFIG_FILE":
            settings[name.removeprefix("PIP_").lower().replace("_", "-")] = value
    return settings


def _shared(value: str, folder: Path) -> str:
    """Copy the files and folders that a setting names, and name the copies instead."""
    words = []
    for word in value.split():
        path = Path(word)
        if path.is_absolute() and path.exists():
            copy = folder / "files" / str(path).strip("/")
            copy.parent.mkdir(parents=True, exist_ok=True)
            if path.is_dir():
                shutil.copytree(path, copy, dirs_exist_ok=True)
            else:
                shutil.copyfile(path, copy)
            words.append(f"{_MOUNT}/files{path}")
        else:
            words.append(word)
    return "\n".join(words)


def debian_mirrors(suite: str) -> tuple[str, str]:
    """Return where this machine gets Debian and its security updates from, or the usual places."""
    found: dict[str, str] = {}
    apt = Path("/etc/apt")
    for path in sorted([*apt.glob("sources.list"), *apt.glob("sources.list.d/*")]):
        text = path.read_text(encoding="utf-8", errors="replace")
        for uri, suites in _sources(text):
            for name in suites:
                found.setdefault(name, uri)
    return found.get(suite, _DEFAULT_MIRROR), found.get(f"{suite}-security", _DEFAULT_SECURITY)


def _sources(text: str) -> list[tuple[str, list[str]]]:
    lines = re.finditer(r"^deb\s+(?:\[[^]]*\]\s+)?(\S+)\s+(\S+)", text, re.MULTILINE)
    pairs = [(match[1].rstrip("/"), [match[2]]) for match in lines]
    for paragraph in re.split(r"\n\s*\n", text):
        uris = re.search(r"^URIs:\s*(\S+)", paragraph, re.MULTILINE)
        suites = re.search(r"^Suites:\s*(.+)$", paragraph, re.MULTILINE)
        if uris and suites:
            pairs.append((uris[1].rstrip("/"), suites[1].split()))
    return pairs


def apt_proxy() -> str:
    """Return the lines of apt's configuration that say how this machine reaches its mirrors."""
    if shutil.which("apt-config") is None:
        return ""
    dump = subprocess.run(["apt-config", "dump"], check=True, capture_output=True, text=True).stdout
    wanted = re.compile(r"Acquire::https?::Proxy(::\S+)? ")
    return "".join(f"{line}\n" for line in dump.splitlines() if wanted.match(line))
