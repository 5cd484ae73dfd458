"""CustomResourceDefinitions from the resources' pydantic models."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from hack.generate.structural import structural

from triton_operator.resources import KINDS

if TYPE_CHECKING:
    from triton_operator.resources.common import Resource
    from triton_operator.resources.schema import Column, Kind, Scale

Manifest = dict[str, Any]

_API_VERSION = {
    "description": "Version of the schema that this object follows: triton-operator.io/v1alpha1.",
    "type": "string",
}
_KIND = {"description": "Kind of the object.", "type": "string"}

# Tools that wait for a resource take one without any status for a healthy one.
_STATUS_DEFAULT = {"observedGeneration": -1}


def all_crds() -> dict[str, Manifest]:
    """Return the CRDs of all kinds by file name."""
    return {f"{kind.KIND.group}_{kind.KIND.plural}.yaml": crd(kind) for kind in KINDS}


def crd(resource: type[Resource]) -> Manifest:
    """Return the CustomResourceDefinition of a kind."""
    kind = resource.KIND
    return {
        "apiVersion": "apiextensions.k8s.io/v1",
        "kind": "CustomResourceDefinition",
        "metadata": {"name": kind.crd_name, "labels": {"app.kubernetes.io/part-of": "triton-operator"}},
        "spec": {
            "group": kind.group,
            "names": _names(kind),
            "scope": "Namespaced",
            "versions": [_version(resource)],
        },
    }


def schema(resource: type[Resource]) -> Manifest:
    """Return the structural schema of a kind; metadata is left to the API server."""
    raw = resource.model_json_schema(by_alias=True, mode="validation")
    result = structural(raw, raw.get("$defs", {}))
    fields = result["properties"]
    fields["status"] = {
        "description": fields["status"]["description"],
        "type": "object",
        "default": _STATUS_DEFAULT,
        **{
            key: value
            for key, value in fields["status"].items()
            if key not in ("description", "type", "default")
        },
    }
    result["properties"] = {
        "apiVersion": _API_VERSION,
        "kind": _KIND,
        "metadata": {"type": "object"},
        "spec": fields["spec"],
        "status": fields["status"],
    }
    return {**result, "required": ["spec"]}


def _names(kind: Kind) -> Manifest:
    return {
        "kind": kind.kind,
        "listKind": f"{kind.kind}List",
        "plural": kind.plural,
        "singular": kind.singular,
        "shortNames": [kind.short_name],
        "categories": [kind.category],
    }


def _version(resource: type[Resource]) -> Manifest:
    kind = resource.KIND
    subresources: Manifest = {"status": {}}
    if kind.scale is not None:
        subresources["scale"] = _scale(kind.scale)
    return {
        "name": kind.version,
        "served": True,
        "storage": True,
        "additionalPrinterColumns": [_column(column) for column in kind.columns],
        "subresources": subresources,
        "schema": {"openAPIV3Schema": schema(resource)},
    }


def _column(column: Column) -> Manifest:
    entry: Manifest = {"name": column.name, "type": column.type, "jsonPath": column.json_path}
    return entry | ({"priority": 1} if column.wide else {})


def _scale(scale: Scale) -> Manifest:
    return {
        "specReplicasPath": scale.spec_replicas,
        "statusReplicasPath": scale.status_replicas,
        "labelSelectorPath": scale.selector,
    }
