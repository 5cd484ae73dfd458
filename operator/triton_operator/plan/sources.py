"""What a Job needs to read a file: a claim, or hosts and a Secret that the ModelRepository allows."""

from __future__ import annotations

import dataclasses

from engine_builder import hosts
from triton_operator.plan import podspec, uri
from triton_operator.plan.outcome import OutcomeError, Stalled
from triton_operator.plan.podspec import Manifest
from triton_operator.resources.model_repository import ModelRepository

CLAIM_SCRATCH = "1Gi"
REMOTE_SCRATCH = "5Gi"
"""A Job without a repository looks at a model of up to 2 GiB there, and unpacks as much."""
_PRIVATE = 0o440


@dataclasses.dataclass(frozen=True)
class Role:
    """What a pod reads a file as: the name of its volume and argument, and that of its Secret's."""

    name: str
    credentials: str


SOURCE = Role("source", "credentials")
CALIBRATION = Role("calibration", "calibration-credentials")
"""Read beside the source, from a place and with a Secret of its own."""


@dataclasses.dataclass(frozen=True)
class Reading:
    """Volumes, mounts and arguments of the pod that reads a file."""

    volumes: tuple[Manifest, ...]
    mounts: tuple[Manifest, ...]
    arguments: tuple[str, ...]
    scratch: str

    def beside(self, other: Reading) -> Reading:
        """Return what the pod needs that reads both; what both say is said once."""
        return Reading(
            volumes=(*self.volumes, *other.volumes),
            mounts=(*self.mounts, *other.mounts),
            arguments=tuple(dict.fromkeys((*self.arguments, *other.arguments))),
            scratch=REMOTE_SCRATCH if REMOTE_SCRATCH in {self.scratch, other.scratch} else CLAIM_SCRATCH,
        )


NO_SOURCE = Reading(volumes=(), mounts=(), arguments=(), scratch=CLAIM_SCRATCH)
"""What a pod needs that reads the repository alone."""


def reading(source: str, secret: str | None, repository: ModelRepository, *, role: Role = SOURCE) -> Reading:
    """Return what the pod needs that reads a file.

    Raises:
        OutcomeError: Stalled with `UnsupportedSource`, `HostNotAllowed` or `SecretNotAllowed`.
    """
    found = uri.parse(source)
    root = f"/{role.name}"
    arguments = (f"--{role.name}={podspec.literal(source)}", f"--{role.name}-root={root}")
    if isinstance(found, uri.ClaimSource):
        return Reading(
            volumes=(podspec.claim_volume(role.name, found.claim, read_only=True),),
            mounts=(podspec.mount(role.name, root, read_only=True),),
            arguments=arguments,
            scratch=CLAIM_SCRATCH,
        )
    _require_host(source, found, repository)
    allowed = tuple(f"--allowed-host={podspec.literal(host)}" for host in repository.spec.allowed_hosts)
    if secret is None:
        return Reading((), (), (*arguments, *allowed), REMOTE_SCRATCH)
    _require_secret(source, secret, repository)
    directory = f"/{role.credentials}"
    return Reading(
        volumes=(_secret_volume(role.credentials, secret),),
        mounts=(podspec.mount(role.credentials, directory, read_only=True),),
        arguments=(*arguments, *allowed, f"--{role.credentials}={directory}"),
        scratch=REMOTE_SCRATCH,
    )


def _secret_volume(name: str, secret: str) -> Manifest:
    # Optional: a Job says that it is missing, where a pod would wait without a word.
    return {
        "name": name,
        "secret": {"secretName": secret, "optional": True, "defaultMode": _PRIVATE},
    }


def _require_host(source: str, found: uri.RemoteSource, repository: ModelRepository) -> None:
    lines = repository.spec.allowed_hosts
    if not lines:
        message = (
            f"source {_shown(source)} comes from elsewhere, and ModelRepository {repository.name} allows no "
            f"host: add {_line(found)} to its spec.allowedHosts"
        )
        raise OutcomeError(Stalled("HostNotAllowed", message))
    if found.host is None or hosts.is_allowed(_entries(repository), found.host, found.port):
        return
    message = (
        f"source {_shown(source)}: host {found.host}, port {found.port} is not among the hosts that "
        f"ModelRepository {repository.name} allows: add {_line(found)} to its spec.allowedHosts"
    )
    raise OutcomeError(Stalled("HostNotAllowed", message))


def _entries(repository: ModelRepository) -> list[hosts.Entry]:
    try:
        return [hosts.parse(line) for line in repository.spec.allowed_hosts]
    except ValueError as error:  # what the schema's pattern lets pass: a port of 99999
        message = f"spec.allowedHosts of ModelRepository {repository.name}: {error}"
        raise OutcomeError(Stalled("HostNotAllowed", message)) from error


def _line(found: uri.RemoteSource) -> str:
    if found.host is None:
        return f"the hosts of {found.scheme}://"
    host = f"[{found.host}]" if ":" in found.host else found.host
    return host if found.port == hosts.HTTPS_PORT else f"{host}:{found.port}"


def _require_secret(source: str, secret: str, repository: ModelRepository) -> None:
    if secret not in repository.spec.allowed_secrets:
        message = (
            f"source {_shown(source)} names Secret {secret}, which ModelRepository {repository.name} does "
            f"not allow: add {secret} to its spec.allowedSecrets"
        )
        raise OutcomeError(Stalled("SecretNotAllowed", message))


def _shown(source: str) -> str:
    """Return a URI without its query, which may be a signature."""
    return source.partition("?")[0] if source.startswith("https://") else source
