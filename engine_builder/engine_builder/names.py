"""Names that become paths on the volume: one rule for each kind, and nothing else passes."""

from __future__ import annotations

import re

_ENGINE = re.compile(r"[a-z0-9][a-z0-9-]{0,252}")
_SERVER = re.compile(r"(?=.{1,253}\Z)[a-z0-9]([a-z0-9-]*[a-z0-9])?(\.[a-z0-9]([a-z0-9-]*[a-z0-9])?)*")
_RELEASE = re.compile(r"[0-9]{2}\.[0-9]{2}")
_MODEL = re.compile(r"[a-zA-Z0-9_][a-zA-Z0-9_.-]{0,137}")  # 128 and the suffix of a candidate
_VERSION = re.compile(r"[1-9][0-9]{0,9}")
_FILE = re.compile(r"[a-zA-Z_][a-zA-Z0-9_.-]{0,254}")  # what begins with a digit may be a version
_STAGING = re.compile(r"[a-zA-Z0-9][a-zA-Z0-9-]{0,127}")
_DIGEST = re.compile(r"[0-9a-f]{64}")
_HIGHEST_VERSION = 2**31 - 1


def is_engine(name: str) -> bool:
    """Tell whether `name` can be an entry of the store."""
    return _ENGINE.fullmatch(name) is not None


def is_server(name: str) -> bool:
    """Tell whether `name` is a name of a Kubernetes object."""
    return _SERVER.fullmatch(name) is not None


def is_release(name: str) -> bool:
    """Tell whether `name` is a Triton release such as 26.07."""
    return _RELEASE.fullmatch(name) is not None


def is_model(name: str) -> bool:
    """Tell whether `name` can be a model's name in Triton and a directory."""
    return _MODEL.fullmatch(name) is not None and ".." not in name


def is_version(name: str) -> bool:
    """Tell whether `name` is a version number that Triton's 32 bits hold."""
    return _VERSION.fullmatch(name) is not None and int(name) <= _HIGHEST_VERSION


def is_file(name: str) -> bool:
    """Tell whether `name` can be a file beside a model's versions."""
    return _FILE.fullmatch(name) is not None and ".." not in name


def is_staging(name: str) -> bool:
    """Tell whether `name` can be a job's staging directory."""
    return _STAGING.fullmatch(name) is not None


def is_digest(text: str) -> bool:
    """Tell whether `text` is 64 lower-case hex digits."""
    return _DIGEST.fullmatch(text) is not None
