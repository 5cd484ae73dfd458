"""ModelRepository: one volume with the engines and the trees that Triton pods read."""

import enum
from typing import Annotated, ClassVar

from pydantic import ConfigDict, Field

from triton_operator.resources.common import Model, Resource, Status
from triton_operator.resources.pods import PULL_SECRETS_LIST, ImagePullSecrets, PodSettings
from triton_operator.resources.scalars import (
    DURATION_PATTERN,
    SIZE_PATTERN,
    DnsSubdomain,
    Duration,
    Quantity,
    Size,
    parse_duration,
    parse_size,
)
from triton_operator.resources.schema import (
    LIST_SET,
    Column,
    Kind,
    Rule,
    immutable,
    ready_columns,
    rules,
)
from triton_operator.resources.triton_server import NAME_MAX_LENGTH

ALLOWED_HOST_PATTERN = r"^((\*\.)?[a-z0-9]([-a-z0-9._]*[a-z0-9])?|\[[0-9a-f:.]+\])(:[0-9]{1,5})?$"
AllowedHost = Annotated[str, Field(pattern=ALLOWED_HOST_PATTERN, min_length=1, max_length=259)]

_NEW_REPOSITORY = "create another ModelRepository and delete this one"


class AccessMode(enum.StrEnum):
    """How many nodes may mount the volume."""

    READ_WRITE_MANY = "ReadWriteMany"
    READ_WRITE_ONCE = "ReadWriteOnce"


class Storage(Model):
    """The PersistentVolumeClaim that the operator makes."""

    class_name: DnsSubdomain | None = Field(
        default=None,
        description="StorageClass of the claim. Default: the cluster's default class. Example: nfs",
    )
    size: Quantity = Field(description="Size that the claim asks for. Example: 50Gi")
    access_modes: Annotated[tuple[AccessMode, ...], Field(min_length=1, max_length=2)] = Field(
        default=(AccessMode.READ_WRITE_MANY,),
        description="Access modes of the claim; ReadWriteOnce is enough where all pods run on one node. "
        "Default: [ReadWriteMany].",
        json_schema_extra=LIST_SET,
    )


class PrepareSettings(PodSettings):
    """The Jobs that make engines."""

    timeout_seconds: int = Field(
        default=3600,
        ge=1,
        le=604_800,
        description="How long one attempt may take, in seconds; it is ended and tried again after that. "
        "Default: 3600.",
    )


class ModelRepositorySpec(Model):
    """The volume, and the pods that work on it."""

    model_config = ConfigDict(
        json_schema_extra=rules(
            Rule(
                "has(self.claimName) != has(self.storage)",
                "set exactly one of claimName (a PersistentVolumeClaim that exists) and storage (one that "
                "the operator makes)",
            ),
            immutable(
                "has(self.claimName) == has(oldSelf.claimName) && "
                "(!has(self.claimName) || self.claimName == oldSelf.claimName)",
                f"claimName cannot be added, changed or removed: {_NEW_REPOSITORY}",
                field_path=".claimName",
            ),
        )
    )

    claim_name: DnsSubdomain | None = Field(
        default=None,
        description="PersistentVolumeClaim of this namespace to work on; it is waited for. Set either "
        "this or storage. "
        "It cannot change. Example: models",
    )
    storage: Storage | None = Field(
        default=None,
        description="Makes a PersistentVolumeClaim called repository-<name>, which is kept when the "
        "ModelRepository is deleted. "
        "Set either this or claimName. It cannot change. Example: {size: 50Gi}",
        json_schema_extra=rules(immutable("self == oldSelf", f"storage cannot change: {_NEW_REPOSITORY}")),
    )
    allowed_hosts: Annotated[tuple[AllowedHost, ...], Field(max_length=64)] = Field(
        default=(),
        description="Hosts that sources may come from: a name, *.<domain> for all names below it, or an "
        "address, each with :<port> unless it is 443. Loopback, link-local and metadata addresses are "
        "refused whatever the name. Default: none, sources come from claims alone. "
        "Example: ['*.s3.eu-central-1.amazonaws.com', 'minio.storage.svc:9000']",
        json_schema_extra=LIST_SET
        | rules(
            Rule(
                f"self.all(host, host.matches(r'{ALLOWED_HOST_PATTERN}'))",
                "allowedHosts holds names, *.<domain> or addresses, in lower case, each with :<port> unless "
                "it is 443, such as minio.storage.svc:9000; no scheme and no path",
            )
        ),
    )
    allowed_secrets: Annotated[tuple[DnsSubdomain, ...], Field(max_length=64)] = Field(
        default=(),
        description="Secrets of this namespace that sources may name; the Jobs that read a source get the "
        "one that it names. Default: none. Example: [s3-read]",
        json_schema_extra=LIST_SET,
    )
    max_source_size: Size = Field(
        default="64Gi",
        description="Largest source, with all its files: a whole number with a unit. Default: 64Gi. "
        "Example: 4Gi",
        json_schema_extra=rules(
            Rule(
                f"self.matches('{SIZE_PATTERN}')",
                "maxSourceSize must be a whole number with a unit, such as 64Gi or 500M",
            )
        ),
    )
    engine_retention: Duration = Field(
        default="168h",
        description="How long an engine that no model uses is kept, in hours, minutes and seconds; going "
        "back to a "
        "version within that time builds nothing. Default: 168h (a week). Example: 720h",
        json_schema_extra=rules(
            Rule(
                f"self.matches(r'{DURATION_PATTERN}')",
                "engineRetention must be hours, minutes and seconds, such as 168h, 30m or 1h30m",
            )
        ),
    )
    keeper: PodSettings = Field(
        default_factory=PodSettings,
        description="The one small pod that writes trees and removes what is not needed any more.",
    )
    prepare: PrepareSettings = Field(
        default_factory=PrepareSettings,
        description="The Jobs that make engines from the sources of models.",
    )
    image_pull_secrets: ImagePullSecrets = Field(
        default=(),
        description="Secrets of this namespace with which the images of keeper and Jobs are pulled. "
        "Default: none. "
        "Example: [{name: registry-login}]",
        json_schema_extra=PULL_SECRETS_LIST,
    )

    @property
    def max_source_bytes(self) -> int:
        """Return how large a source may be."""
        return parse_size(self.max_source_size)

    @property
    def engine_retention_seconds(self) -> float:
        """Return how long an unused engine is kept."""
        return parse_duration(self.engine_retention)


class ModelRepositoryStatus(Status):
    """What the operator found."""

    claim: str | None = Field(
        default=None,
        max_length=253,
        description="PersistentVolumeClaim that is used. Example: repository-default",
    )
    bytes_total: str | None = Field(
        default=None, max_length=32, description="Size of the volume's file system. Example: 49.1Gi"
    )
    bytes_free: str | None = Field(
        default=None, max_length=32, description="What is free of it. Example: 9.8Gi"
    )
    engines: int | None = Field(default=None, ge=0, le=2**31 - 1, description="Engines in the store.")
    capabilities: Annotated[tuple[Annotated[str, Field(max_length=32)], ...], Field(max_length=16)] = Field(
        default=(),
        description="What the file system was found able to do. Example: [rename, links, fsync]",
        json_schema_extra=LIST_SET,
    )


class ModelRepository(Resource):
    """ModelRepository is one volume: the engines of models, and the directories that Triton pods read.

    TritonServers name the ModelRepository that they read.
    """

    model_config = ConfigDict(
        json_schema_extra=rules(
            Rule(
                f"size(self.metadata.name) <= {NAME_MAX_LENGTH} && !self.metadata.name.contains('.')",
                f"metadata.name of a ModelRepository has at most {NAME_MAX_LENGTH} characters and no dot, "
                "because other "
                "objects are named after it: choose another name",
            )
        )
    )

    KIND: ClassVar[Kind] = Kind(
        kind="ModelRepository",
        plural="modelrepositories",
        short_name="trepo",
        columns=(
            Column("Claim", ".status.claim"),
            Column("Free", ".status.bytesFree"),
            Column("Engines", ".status.engines", type="integer"),
            *ready_columns(),
        ),
    )

    spec: ModelRepositorySpec = Field(description="The volume, and the pods that work on it.")
    status: ModelRepositoryStatus = Field(
        default_factory=ModelRepositoryStatus, description="What the operator found; written by it alone."
    )

    @property
    def claim_name(self) -> str:
        """Return the claim to work on: the one named, else the one that the operator makes."""
        return self.spec.claim_name or f"repository-{self.metadata.name}"
