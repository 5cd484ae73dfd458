"""What a CRD says beyond a pydantic field: CEL rules, list types, columns, names of the kind.

The declarations stand beside the fields they speak about and travel through
`json_schema_extra`; `hack/generate` turns them into `crds/`.
"""

import dataclasses
import enum
from typing import Any

GROUP = "triton-operator.io"
VERSION = "v1alpha1"
CATEGORY = "triton"


class Refusal(enum.StrEnum):
    """Why the API server says that a rule was broken (`reason` of a CEL rule)."""

    INVALID = "FieldValueInvalid"
    FORBIDDEN = "FieldValueForbidden"
    REQUIRED = "FieldValueRequired"


@dataclasses.dataclass(frozen=True)
class Rule:
    """A CEL rule: `expression` must hold, else `message` is the answer to the user.

    `field_path` is relative to where the rule stands (`.source.uri`) and moves the error there.
    """

    expression: str
    message: str
    field_path: str | None = None
    reason: Refusal = Refusal.INVALID

    def to_schema(self) -> dict[str, str]:
        """Return the entry of `x-kubernetes-validations`."""
        entry = {"rule": self.expression, "message": self.message, "reason": self.reason.value}
        return entry if self.field_path is None else entry | {"fieldPath": self.field_path}


def rules(*entries: Rule) -> dict[str, Any]:
    """Return the `json_schema_extra` that attaches rules to a field or model."""
    return {"x-kubernetes-validations": [entry.to_schema() for entry in entries]}


def immutable(expression: str, message: str, *, field_path: str | None = None) -> Rule:
    """Return a transition rule: the API server shows it as `Forbidden`."""
    return Rule(expression, message, field_path=field_path, reason=Refusal.FORBIDDEN)


def unchanged(path: str) -> str:
    """Return the CEL that an optional field is what it was: there as before, or missing as before."""
    now, before = f"self.{path}", f"oldSelf.{path}"
    return f"has({now}) == has({before}) && (!has({now}) || {now} == {before})"


def list_map(*keys: str) -> dict[str, Any]:
    """Mark a list whose entries are told apart by `keys`; a key twice is refused."""
    return {"x-kubernetes-list-type": "map", "x-kubernetes-list-map-keys": list(keys)}


LIST_SET: dict[str, Any] = {"x-kubernetes-list-type": "set"}
"""A list of scalars in which nothing stands twice."""

LIST_ATOMIC: dict[str, Any] = {"x-kubernetes-list-type": "atomic"}
"""A list that one writer owns as a whole."""


@dataclasses.dataclass(frozen=True)
class Column:
    """A column of `kubectl get`; `wide` ones show with `-o wide` only."""

    name: str
    json_path: str
    type: str = "string"
    wide: bool = False


def ready_columns() -> tuple[Column, ...]:
    """Return the columns with which every kind's table ends."""
    ready = '.status.conditions[?(@.type=="Ready")]'
    return (
        Column("Ready", f"{ready}.status"),
        Column("Reason", f"{ready}.reason"),
        Column("Age", ".metadata.creationTimestamp", type="date"),
        Column("Message", f"{ready}.message", wide=True),
    )


@dataclasses.dataclass(frozen=True)
class Scale:
    """Where the scale subresource finds its figures."""

    spec_replicas: str = ".spec.replicas"
    status_replicas: str = ".status.replicas"
    selector: str = ".status.selector"


@dataclasses.dataclass(frozen=True)
class Kind:
    """Names of a kind, and how `kubectl get` prints it."""

    kind: str
    plural: str
    short_name: str
    columns: tuple[Column, ...]
    scale: Scale | None = None
    group: str = GROUP
    version: str = VERSION
    category: str = CATEGORY

    @property
    def singular(self) -> str:
        """Return the lower-case name of one object."""
        return self.kind.lower()

    @property
    def api_version(self) -> str:
        """Return `group/version` as it stands in a manifest."""
        return f"{self.group}/{self.version}"

    @property
    def crd_name(self) -> str:
        """Return the name of the CustomResourceDefinition."""
        return f"{self.plural}.{self.group}"
