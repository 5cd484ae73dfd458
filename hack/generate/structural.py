"""From pydantic's JSON schema to the structural OpenAPI schema that a CRD must have.

A structural schema has no references and no alternatives, and says the type of everything
(https://kubernetes.io/docs/tasks/extend-kubernetes/custom-resources/custom-resource-definitions/#specifying-a-structural-schema).
"""

from __future__ import annotations

import inspect
import re
from collections.abc import Mapping
from typing import Any

Schema = dict[str, Any]

_ORDER = ("description", "type", "format", "default", "enum", "pattern")
_LAST = ("properties", "required", "items", "additionalProperties")
_VALIDATIONS = "x-kubernetes-validations"
_INT_OR_STRING = "x-kubernetes-int-or-string"
_INT32_MAX = 2**31 - 1


def structural(schema: Mapping[str, Any], definitions: Mapping[str, Schema]) -> Schema:
    """Return a schema without references, alternatives and titles; key order is fixed."""
    flat = _without_alternatives(_without_references(dict(schema), definitions))
    flat.pop("title", None)
    flat.pop("$defs", None)
    flat = _with_children(_with_plain_values(flat), definitions)
    return {key: flat[key] for key in sorted(flat, key=_rank)}


def _without_references(schema: Schema, definitions: Mapping[str, Schema]) -> Schema:
    """Put what a reference names in its place; what stands beside the reference wins."""
    reference = schema.pop("$ref", None)
    if reference is None:
        return schema
    named = _without_references(dict(definitions[reference.rpartition("/")[2]]), definitions)
    return _merged(named, schema)


def _merged(under: Schema, over: Schema) -> Schema:
    """Return both schemas in one; CEL rules of both hold."""
    checks = [*under.get(_VALIDATIONS, []), *over.get(_VALIDATIONS, [])]
    return {**under, **over, **({_VALIDATIONS: checks} if checks else {})}


def _without_alternatives(schema: Schema) -> Schema:
    """Replace "this or null" by this: in Kubernetes what is null is left out."""
    if _INT_OR_STRING in schema or "anyOf" not in schema:
        return schema
    outer = {key: value for key, value in schema.items() if key != "anyOf"}
    real = [option for option in schema["anyOf"] if option.get("type") != "null"]
    if len(real) != 1:
        raise ValueError(f"a structural schema cannot say one of several types: {schema}")
    return _merged(real[0], outer)


def _with_plain_values(schema: Schema) -> Schema:
    """Write constants as enums and docstrings as paragraphs, size integers, drop empty defaults."""
    if "const" in schema:
        schema["enum"] = [schema.pop("const")]
    if "default" in schema and schema["default"] in (None, [], {}):
        del schema["default"]
    if schema.get("type") == "integer":
        schema["format"] = "int32" if schema.get("maximum", _INT32_MAX + 1) <= _INT32_MAX else "int64"
    if "description" in schema:
        paragraphs = inspect.cleandoc(schema["description"]).split("\n\n")
        schema["description"] = "\n\n".join(re.sub(r"\s+", " ", text) for text in paragraphs)
    return schema


def _with_children(schema: Schema, definitions: Mapping[str, Schema]) -> Schema:
    for key in ("items", "additionalProperties"):
        if isinstance(schema.get(key), Mapping):
            schema[key] = structural(schema[key], definitions)
            # `kubectl explain` would print it below the list's own description
            schema[key].pop("description", None)
    if "properties" in schema:
        required = schema.get("required", [])
        schema["properties"] = {
            name: _property(child, definitions, is_optional=name not in required)
            for name, child in schema["properties"].items()
        }
    if "$ref" in schema:
        return structural(schema, definitions)
    return schema


def _property(child: Mapping[str, Any], definitions: Mapping[str, Schema], *, is_optional: bool) -> Schema:
    """Return the schema of a property; one that is filled in when left out says so.

    The API server fills in the defaults of an object's fields only if the object is there:
    an object that pydantic makes from its defaults (and not one that may be absent, which
    has the default null) gets the default `{}`.
    """
    result = structural(child, definitions)
    has_defaults = any("default" in field for field in result.get("properties", {}).values())
    if is_optional and "default" not in child and has_defaults:
        result["default"] = {}
    return {key: result[key] for key in sorted(result, key=_rank)}


def _rank(key: str) -> tuple[int, int, str]:
    if key in _ORDER:
        return (0, _ORDER.index(key), key)
    if key in _LAST:
        return (2, _LAST.index(key), key)
    return (1, 0, key)
