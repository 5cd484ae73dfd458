"""Engine objects: what the operator writes when a model needs one."""

from __future__ import annotations

import dataclasses
from collections.abc import Set as AbstractSet
from typing import Any, NamedTuple

from engine_builder.contract import PREPARE_VERSION
from triton_operator.plan import names, versions
from triton_operator.plan.versions import NeededEngine
from triton_operator.resources.engine import Engine, EngineBuild
from triton_operator.resources.inference_model import InferenceModel
from triton_operator.resources.version import Version


class Place(NamedTuple):
    """Where a file lies, and the Secret with which it is read."""

    uri: str
    secret: str | None = None


def manifest(
    *, engine: NeededEngine, namespace: str, repository: str, model: InferenceModel, version: Version
) -> dict[str, Any]:
    """Return an Engine. It has no owner: it is a cache, and outlives the models that use it."""
    return {
        "apiVersion": Engine.KIND.api_version,
        "kind": Engine.KIND.kind,
        "metadata": {"name": engine.name, "namespace": namespace, "labels": names.labels("engine")},
        "spec": {
            "key": engine.key,
            "backend": engine.backend.value,
            "repository": repository,
            **_made_from(engine, version, model.spec.check.minimum_cosine),
        },
    }


def _made_from(engine: NeededEngine, version: Version, minimum_cosine: str) -> dict[str, Any]:
    compilation = engine.compilation
    if compilation is None:
        source = _source(Place(version.source.uri, version.source.secret_name), engine.sha256)
        conversion = _conversion(version)
        if conversion:
            conversion["minimumCosine"] = minimum_cosine
        return {"source": source, **conversion, "prepareVersion": PREPARE_VERSION}
    target, origin = compilation.target, compilation.origin.name
    if target is None:
        return {"from": origin, **_conversion(version)}
    return {
        "from": origin,
        "target": {
            "product": target.product,
            "computeCapability": target.compute_capability,
            "memoryMiB": target.memory_mib,
        },
        "release": compilation.release,
        "compile": version.build.to_manifest(),
    }


def _conversion(version: Version) -> dict[str, Any]:
    if not versions.build_options(version):
        return {}
    build = version.build.to_manifest()
    return {"build": {name: build[name] for name in ("precision", "keepIO", "calibration") if name in build}}


@dataclasses.dataclass(frozen=True)
class Use:
    """What a user of an engine says that its key doesn't hold: where things lie, what is good enough."""

    place: Place
    minimum_cosine: str
    calibration: Place | None = None


def use_of(model: InferenceModel, version: Version) -> Use:
    """Return what a version says of its engine."""
    calibration = version.build.calibration
    read = Place(calibration.uri, calibration.secret_name) if calibration and calibration.uri else None
    source = Place(version.source.uri, version.source.secret_name)
    return Use(source, model.spec.check.minimum_cosine, read)


def adjusted(engine: Engine, uses: AbstractSet[Use]) -> dict[str, Any] | None:
    """Return the Engine as its users want it now, or None when it need not change.

    The place of the source isn't part of the key, so several models may name several; any of them
    will do. Nor is the least cosine: the lowest counts, as each model checks its own once more.
    """
    source = engine.spec.source
    if source is None or not uses:
        return None
    place = _place(Place(source.uri, source.secret_name), {use.place for use in uses})
    changes: dict[str, Any] = {"source": _source(place, source.sha256)}
    if engine.spec.build is not None:
        changes["build"] = _build(engine.spec.build, uses)
        changes["minimumCosine"] = min(
            (use.minimum_cosine for use in uses), key=lambda text: (float(text), text)
        )
    body = engine.to_manifest()
    body.pop("status", None)
    if body["spec"] | changes == body["spec"]:
        return None
    metadata = {
        "name": engine.name,
        "namespace": engine.namespace,
        "uid": engine.metadata.uid,
        "labels": names.labels("engine"),
    }
    spec = body["spec"] | changes
    return {"apiVersion": body["apiVersion"], "kind": body["kind"], "metadata": metadata, "spec": spec}


def _build(build: EngineBuild, uses: AbstractSet[Use]) -> dict[str, Any]:
    """Return the build with calibration data where a user has them."""
    body, calibration = build.to_manifest(), build.calibration
    places = {use.calibration for use in uses if use.calibration is not None}
    if calibration is not None and calibration.uri is not None and places:
        place = _place(Place(calibration.uri, calibration.secret_name), places)
        kept = {name: value for name, value in body["calibration"].items() if name != "secretName"}
        body["calibration"] = kept | _written(place)
    return body


def _place(here: Place, places: AbstractSet[Place]) -> Place:
    return here if here in places else min(places, key=_order)


def _order(place: Place) -> tuple[str, str]:
    return (place.uri, place.secret or "")


def _source(place: Place, sha256: str) -> dict[str, str]:
    return _written(place) | {"sha256": sha256}


def _written(place: Place) -> dict[str, str]:
    named = {"secretName": place.secret} if place.secret is not None else {}
    return {"uri": place.uri, **named}
