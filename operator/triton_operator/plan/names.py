"""Names and labels of everything that the operator creates: deterministic, short enough, ours."""

from __future__ import annotations

import dataclasses
import hashlib
import json
from typing import NewType

from engine_builder.contract import OPENVINO_VERSION, PREPARE_VERSION, CompileOptions, Target

GROUP = "triton-operator.io"
MANAGER = "triton-operator"

EngineName = NewType("EngineName", str)
EngineKey = NewType("EngineKey", str)
Sha256 = NewType("Sha256", str)

MANAGED_BY = "app.kubernetes.io/managed-by"
COMPONENT = "app.kubernetes.io/component"
SERVER = f"{GROUP}/server"
REPOSITORY = f"{GROUP}/repository"
ENGINE = f"{GROUP}/engine"
MODEL = f"{GROUP}/model"
RELEASE = f"{GROUP}/release"
RESOLVE = f"{GROUP}/resolve"
ATTEMPT = f"{GROUP}/attempt"
TARGET = f"{GROUP}/target"
"""Annotation of a GPU server's Deployment with the hardware that its pods are for, as in the status."""
LENT = f"{GROUP}/lent"
"""Annotation of a GPU server's Deployment with the replica that is lent to a build (`plan.lending`)."""
GENERATION = f"{GROUP}/generation"
SERVING = f"{GROUP}/serving"
"""`true` on a pod that Services may send requests to; every Triton pod starts with it."""

SELECT_OURS = f"{MANAGED_BY}={MANAGER}"


def labels(component: str, **more: str) -> dict[str, str]:
    """Return the labels of a child; keywords are label names of our group (`server="a10"`)."""
    ours = {f"{GROUP}/{key}": value for key, value in more.items()}
    return {MANAGED_BY: MANAGER, COMPONENT: component, **ours}


def deployment_of_server(server: str) -> str:
    """Return the name of a server's Deployment (and of its Service unless the spec names one)."""
    return f"triton-{server}"


def deployment_of_keeper(repository: str) -> str:
    """Return the name of the keeper's Deployment."""
    return f"keeper-{repository}"


def secret(prefix: str, key: bytes) -> str:
    """Return a Secret's name that holds a trace of its key.

    The operator may create Secrets but not read them. A name that only the holder of the
    master key can form cannot be taken by a foreign object before us, and another key is
    another name, so pods roll when the key changes.
    """
    return f"{prefix}-key-{hashlib.sha256(b'name:' + key).hexdigest()[:8]}"


def digest(*parts: object) -> str:
    """Return the SHA-256 (hex) of the parts' canonical JSON."""
    text = json.dumps(parts, sort_keys=True, separators=(",", ":"), default=str)
    return hashlib.sha256(text.encode()).hexdigest()


def content_digest(*, sha256: str, build: dict[str, object]) -> str:
    """Return what a version number means: its source's content and its build options."""
    return digest("content", sha256, build)


def prepared_engine_key(
    *, backend: str, sha256: str, build: dict[str, object], repository_uid: str
) -> EngineKey:
    """Return the key of a prepared engine: all that its bytes depend on, and nothing else."""
    return EngineKey(digest("prepared", backend, sha256, build, PREPARE_VERSION, repository_uid))


def compiled_engine_key(
    *, prepared_key: EngineKey, target: Target, release: str, options: CompileOptions
) -> EngineKey:
    """Return the key of an engine that is compiled from a prepared one.

    The release stands for its TensorRT, which nobody here can ask for the version. Images are not
    in the key, or a mirror would build everything again.
    """
    return EngineKey(digest("compiled", prepared_key, dataclasses.asdict(target), release, _steady(options)))


def converted_engine_key(*, prepared_key: EngineKey) -> EngineKey:
    """Return the key of OpenVINO's engine: it is the same for every CPU, release and batch size."""
    return EngineKey(digest("openvino", prepared_key, OPENVINO_VERSION))


def _steady(options: CompileOptions) -> dict[str, object]:
    """Return the options in one form for all ways to write them: a profile's inputs have no order.

    What has its default is left out, so that an option that is new builds nothing again.
    """
    ordered = tuple(tuple(sorted(each, key=lambda found: found.name)) for each in options.profiles)
    said = dataclasses.asdict(dataclasses.replace(options, profiles=ordered))
    defaults = dataclasses.asdict(CompileOptions(max_batch_size=0))
    return {name: value for name, value in said.items() if value != defaults[name]}


def resolve_name(*, model_uid: str, number: int, uri: str) -> str:
    """Return the base name of the Jobs that find out the digest of a version's source."""
    return f"resolve-{digest(model_uid, number, uri)[:16]}"


def job_name(base: str, attempt: int) -> str:
    """Return the name of one attempt's Job."""
    return f"{base}-{attempt}"
