"""What can be set: the environment gives every value, the command line may say otherwise."""

from __future__ import annotations

import dataclasses
import os
import types
import typing
from pathlib import Path
from typing import Any, Literal, Self

if typing.TYPE_CHECKING:
    from collections.abc import Mapping

PREFIX = "TRITON_OPERATOR_"
"""`engine_builder_image` is `TRITON_OPERATOR_ENGINE_BUILDER_IMAGE` in the environment."""

_NAMESPACE_FILE = Path("/var/run/secrets/kubernetes.io/serviceaccount/namespace")


@dataclasses.dataclass(frozen=True, kw_only=True)
class Settings:
    """Settings of one operator process; see `from_environment`."""

    namespace: str
    """Namespace of the operator itself: its Lease, its master key. Default: the pod's."""

    identity: str
    """Who holds the Lease; unique among running operators. Default: the host name (a pod's is its name)."""

    engine_builder_image: str
    """Image of prepare and resolve Jobs and of keepers."""

    image_pull_policy: Literal["Always", "IfNotPresent", "Never"] = "IfNotPresent"
    """Pull policy of that image."""

    image_pull_secrets: tuple[str, ...] = ()
    """Secrets to pull that image with, in every namespace that has repositories; separated by commas."""

    watch_namespaces: tuple[str, ...] = ()
    """Namespaces to work in, separated by commas; empty: all of them."""

    kubeconfig: str | None = None
    """Path of a kubeconfig; default: the pod's service account, else what kubectl would use."""

    cluster_uid: str = ""
    """What volumes call this cluster in their owner file; empty: the UID of the namespace kube-system."""

    deployment: str = ""
    """Name of the operator's own Deployment, which then owns its Lease; empty: nobody does."""

    lease_name: str = "triton-operator"
    """Name of the Lease; operators that share one take turns."""

    workers: int = 8
    """How many objects are reconciled at once."""

    resync_seconds: float = 300
    """After so long every object is looked at again, whether or not an event came."""

    fleet_seconds: float = 15
    """After so long every Triton pod is compared with its tree again."""

    retry_seconds: float = 5
    """After so long a Job that failed is tried again, and after twice as long with every attempt."""

    listen: str = ":8080"
    """Where health and metrics are served, as `host:port`."""

    log_level: Literal["DEBUG", "INFO", "WARNING", "ERROR"] = "INFO"
    """Least severe level that is logged."""

    log_format: Literal["json", "text"] = "json"
    """One JSON object per line, or text for people."""

    def __post_init__(self) -> None:
        """Refuse what can't work.

        Raises:
            ValueError: names the field.
        """
        for name in ("namespace", "identity", "engine_builder_image"):
            if not getattr(self, name):
                raise ValueError(f"{name} is not set: set {PREFIX}{name.upper()}")
        for name in ("workers", "resync_seconds", "fleet_seconds", "retry_seconds"):
            if getattr(self, name) <= 0:
                raise ValueError(f"{name} must be more than 0")

    @classmethod
    def from_environment(cls, environment: Mapping[str, str] = os.environ, /, **given: Any) -> Self:
        """Read settings; `given` ones that are not None (from a command line) come first.

        Raises:
            ValueError: a value can't be read or is missing; the message names the variable.
        """
        defaults = {"namespace": _own_namespace(), "identity": environment.get("HOSTNAME", "")}
        hints = typing.get_type_hints(cls)
        values: dict[str, Any] = {}
        for field in dataclasses.fields(cls):
            variable = PREFIX + field.name.upper()
            if given.get(field.name) is not None:
                values[field.name] = given[field.name]
            elif environment.get(variable):
                values[field.name] = _read(hints[field.name], environment[variable], variable)
            elif field.name in defaults:
                values[field.name] = defaults[field.name]
            elif field.default is dataclasses.MISSING:
                values[field.name] = ""
        return cls(**values)


def _own_namespace() -> str:
    try:
        return _NAMESPACE_FILE.read_text().strip()
    except OSError:
        return ""


def _read(hint: Any, text: str, variable: str) -> Any:
    origin, args = typing.get_origin(hint), typing.get_args(hint)
    if origin is tuple:
        return tuple(part.strip() for part in text.split(",") if part.strip())
    if origin is Literal:
        if text not in args:
            raise ValueError(f"{variable}={text}: must be one of {', '.join(args)}")
        return text
    if origin in (typing.Union, types.UnionType):
        return text
    try:
        return hint(text)
    except ValueError as error:
        raise ValueError(f"{variable}={text}: not a number") from error
