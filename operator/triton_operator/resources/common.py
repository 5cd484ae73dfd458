"""What all kinds have in common: the model base, metadata, conditions, status and the top class."""

import enum
from collections.abc import Mapping
from typing import Annotated, Any, ClassVar, Self

from pydantic import BaseModel, ConfigDict, Field
from pydantic.alias_generators import to_camel

from triton_operator.resources.scalars import Timestamp
from triton_operator.resources.schema import Kind, list_map


class Model(BaseModel):
    """Base of everything that stands in a manifest: frozen, camelCase outside, lenient on reading.

    Unknown fields are ignored, so that an operator and CRDs of neighbouring versions
    understand each other during an upgrade.
    """

    model_config = ConfigDict(
        alias_generator=to_camel,
        populate_by_name=True,
        frozen=True,
        extra="ignore",
        use_attribute_docstrings=False,
    )

    def to_manifest(self) -> dict[str, Any]:
        """Return the JSON form with Kubernetes' names; what is unset is left out."""
        return self.model_dump(mode="json", by_alias=True, exclude_none=True)


class ConditionStatus(enum.StrEnum):
    """Status of a condition."""

    TRUE = "True"
    FALSE = "False"
    UNKNOWN = "Unknown"


class Condition(Model):
    """One aspect of the object's state, in Kubernetes' standard form."""

    type: str = Field(
        min_length=1,
        max_length=316,
        pattern=r"^([a-z0-9]([-a-z0-9.]*[a-z0-9])?/)?[A-Za-z0-9]([-A-Za-z0-9_.]*[A-Za-z0-9])?$",
        description="Name of the condition. Every kind has Ready, Reconciling and Stalled. Example: Ready",
    )
    status: ConditionStatus = Field(description="True, False or Unknown.")
    reason: str = Field(
        min_length=1,
        max_length=1024,
        pattern=r"^[A-Za-z]([A-Za-z0-9_,:]*[A-Za-z0-9_])?$",
        description="One word for programs: why the condition has this status. Example: Served",
    )
    message: str = Field(
        max_length=32768,
        description="What happened, to which object, and what to do next, for people.",
    )
    last_transition_time: Timestamp = Field(
        description="When the status last changed. Example: 2026-07-01T12:00:00Z"
    )
    observed_generation: int | None = Field(
        default=None,
        ge=-1,
        description="The metadata.generation that this condition speaks about; an older one than "
        "metadata.generation means that the condition is out of date.",
    )


class Status(Model):
    """What all kinds report."""

    observed_generation: int = Field(
        default=-1,
        ge=-1,
        description="The metadata.generation that the operator last acted on; -1 until it first looked.",
    )
    conditions: Annotated[tuple[Condition, ...], Field(max_length=16)] = Field(
        default=(),
        description="Ready: the object does what its spec says. Reconciling: the operator is at work on it. "
        "Stalled: the operator cannot go on until somebody changes something; the message says what.",
        json_schema_extra=list_map("type"),
    )

    def condition(self, type_: str) -> Condition | None:
        """Return the condition of a type, if the object has it."""
        return next((condition for condition in self.conditions if condition.type == type_), None)


class Metadata(Model):
    """The part of an object's metadata that the operator reads."""

    name: str
    namespace: str = ""
    uid: str = ""
    generation: int = 0
    resource_version: str = ""
    creation_timestamp: Timestamp | None = None
    deletion_timestamp: Timestamp | None = None
    labels: Mapping[str, str] = Field(default_factory=dict)
    annotations: Mapping[str, str] = Field(default_factory=dict)


class Resource(Model):
    """Base of the four kinds."""

    KIND: ClassVar[Kind]

    metadata: Metadata

    @classmethod
    def parse(cls, body: Mapping[str, Any]) -> Self:
        """Return the object that a manifest or an API server's answer describes.

        Raises:
            pydantic.ValidationError: the body breaks the schema, which can only happen
                with an object that was stored under an older CRD.
        """
        return cls.model_validate(body)

    @property
    def name(self) -> str:
        """Return the object's name."""
        return self.metadata.name

    @property
    def namespace(self) -> str:
        """Return the object's namespace."""
        return self.metadata.namespace

    def to_manifest(self) -> dict[str, Any]:
        """Return the whole manifest with apiVersion and kind."""
        return {"apiVersion": self.KIND.api_version, "kind": self.KIND.kind} | super().to_manifest()
