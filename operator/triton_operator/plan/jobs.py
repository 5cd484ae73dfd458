"""Jobs: one per attempt at an engine, at a source's digest, or at samples. Created once, never changed."""

from __future__ import annotations

from collections.abc import Mapping

from triton_operator.plan import names, podspec, sources
from triton_operator.plan.podspec import Images, Manifest
from triton_operator.plan.samples import Entry
from triton_operator.plan.sources import Reading
from triton_operator.resources.common import Resource
from triton_operator.resources.engine import Engine
from triton_operator.resources.inference_model import InferenceModel
from triton_operator.resources.model_repository import ModelRepository, PrepareSettings
from triton_operator.resources.version import Backend, Version

PREPARE = "prepare"
CONVERT = "convert"
COMPILE = "compile"
"""Component labels of Jobs that make engines."""


def labels_of(engine: Engine) -> dict[str, str]:
    """Return the labels by which the Jobs that make an engine are found."""
    component = {Backend.OPENVINO: CONVERT, Backend.TENSORRT: COMPILE}.get(engine.spec.backend, PREPARE)
    return names.labels(component, engine=engine.name)


def prepare(*, engine: Engine, attempt: int, repository: ModelRepository, images: Images) -> Manifest:
    """Return the Job that prepares an engine from its source; the engine must have one."""
    given, settings = engine.spec.source, repository.spec.prepare
    if given is None:
        raise ValueError(f"Engine {engine.name} is compiled from another")
    reading = _with_calibration(sources.reading(given.uri, given.secret_name, repository), engine, repository)
    arguments = [
        "prepare",
        f"--repository={podspec.REPOSITORY_MOUNT}",
        f"--engine={engine.metadata.name}",
        f"--key={engine.spec.key}",
        *reading.arguments,
        f"--max-bytes={repository.spec.max_source_bytes}",
        f"--sha256={given.sha256}",
        "--staging-uid=$(POD_UID)",
        *_conversion(engine),
    ]
    labels = labels_of(engine)
    pod = _pod(arguments, reading=reading, claim=repository.claim_name, settings=settings, images=images)
    return _job(engine, base=engine.name, attempt=attempt, labels=labels, pod=pod, settings=settings)


def _conversion(engine: Engine) -> list[str]:
    """Return the arguments that put a precision into the model."""
    build = engine.spec.build
    if build is None:
        return []
    arguments = [f"--precision={build.precision.value}"]
    if not build.keep_io:
        arguments.append("--no-keep-io")
    if engine.spec.minimum_cosine is not None:
        arguments.append(f"--minimum-cosine={engine.spec.minimum_cosine}")
    calibration = build.calibration
    if calibration is not None and calibration.generated:
        arguments.append("--calibration-generated")
    if calibration is not None and calibration.sha256 is not None:
        arguments.append(f"--calibration-sha256={calibration.sha256}")
    return arguments


def _with_calibration(reading: Reading, engine: Engine, repository: ModelRepository) -> Reading:
    """Return what the pod needs that reads the source, and the calibration data if there are any."""
    calibration = engine.spec.build.calibration if engine.spec.build is not None else None
    if calibration is None or calibration.uri is None:
        return reading
    found = sources.reading(calibration.uri, calibration.secret_name, repository, role=sources.CALIBRATION)
    return reading.beside(found)


def convert(*, engine: Engine, attempt: int, repository: ModelRepository, images: Images) -> Manifest:
    """Return the Job that converts a prepared engine, on a CPU; the engine must be made from one."""
    origin, settings = engine.spec.origin, repository.spec.prepare
    if origin is None:
        raise ValueError(f"Engine {engine.name} is prepared from a source")
    arguments = [
        "convert",
        f"--repository={podspec.REPOSITORY_MOUNT}",
        f"--engine={engine.name}",
        f"--key={engine.spec.key}",
        f"--from={origin}",
        "--staging-uid=$(POD_UID)",
    ]
    pod = _pod(
        arguments,
        reading=sources.NO_SOURCE,
        claim=repository.claim_name,
        settings=settings,
        images=images,
    )
    labels = labels_of(engine)
    return _job(engine, base=engine.name, attempt=attempt, labels=labels, pod=pod, settings=settings)


def resolve(
    *, model: InferenceModel, version: Version, attempt: int, repository: ModelRepository, images: Images
) -> Manifest:
    """Return the Job that finds out the digest of a version's source."""
    settings = repository.spec.prepare
    reading = sources.reading(version.source.uri, version.source.secret_name, repository)
    base = names.resolve_name(model_uid=model.metadata.uid, number=version.number, uri=version.source.uri)
    arguments = [
        "resolve",
        *reading.arguments,
        f"--max-bytes={repository.spec.max_source_bytes}",
    ]
    labels = {**names.labels("resolve"), names.RESOLVE: base}
    pod = _pod(arguments, reading=reading, claim=None, settings=settings, images=images)
    return _job(model, base=base, attempt=attempt, labels=labels, pod=pod, settings=settings)


def reference(
    *,
    model: InferenceModel,
    engine: str,
    entry: Entry,
    attempt: int,
    repository: ModelRepository,
    images: Images,
) -> Manifest:
    """Return the Job that puts the model's own samples into the store, with an engine's answers.

    The model must name samples.
    """
    samples, settings = model.spec.check.samples, repository.spec.prepare
    if samples is None:
        raise ValueError(f"InferenceModel {model.name} names no samples")
    reading = sources.reading(samples.uri, samples.secret_name, repository)
    arguments = [
        "reference",
        f"--repository={podspec.REPOSITORY_MOUNT}",
        f"--engine={engine}",
        f"--entry={entry.name}",
        f"--key={entry.key}",
        *reading.arguments,
        *([f"--sha256={samples.sha256}"] if samples.sha256 is not None else []),
        "--staging-uid=$(POD_UID)",
    ]
    pod = _pod(arguments, reading=reading, claim=repository.claim_name, settings=settings, images=images)
    return _job(model, base=entry.name, attempt=attempt, labels=entry.labels, pod=pod, settings=settings)


def _job(
    owner: Resource,
    *,
    base: str,
    attempt: int,
    labels: Mapping[str, str],
    pod: Manifest,
    settings: PrepareSettings,
) -> Manifest:
    job = of_attempt(owner, base=base, attempt=attempt, labels=labels, pod=pod)
    job["spec"]["activeDeadlineSeconds"] = settings.timeout_seconds
    return job


def of_attempt(
    owner: Resource, *, base: str, attempt: int, labels: Mapping[str, str], pod: Manifest
) -> Manifest:
    """Return the Job of one attempt, whose pods have the same labels."""
    own = {**labels, names.ATTEMPT: str(attempt), names.GENERATION: str(owner.metadata.generation)}
    return {
        "apiVersion": "batch/v1",
        "kind": "Job",
        "metadata": podspec.metadata(names.job_name(base, attempt), owner, own),
        "spec": {
            # Attempts are ours to count: a retry inside the Job would hide its reason.
            "backoffLimit": 0,
            "podReplacementPolicy": "Failed",
            "template": {"metadata": {"labels": dict(labels)}, "spec": pod},
        },
    }


def _pod(
    arguments: list[str],
    *,
    reading: Reading,
    claim: str | None,
    settings: PrepareSettings,
    images: Images,
) -> Manifest:
    """Return a pod that reads from somewhere and writes to a repository."""
    volumes, mounts = list(reading.volumes), list(reading.mounts)
    if claim is not None:
        volumes.append(podspec.claim_volume("repository", claim, read_only=False))
        mounts.append(podspec.mount("repository", podspec.REPOSITORY_MOUNT, read_only=False))
    pod = podspec.base_pod(pull_secrets=images.pull_secrets, placement=settings)
    container = {
        "name": "engine-builder",
        "image": images.engine_builder,
        "imagePullPolicy": images.pull_policy,
        "args": [*arguments, "--termination-log=/dev/termination-log"],
        "env": [{"name": "POD_UID", "valueFrom": {"fieldRef": {"fieldPath": "metadata.uid"}}}],
        "securityContext": podspec.CONTAINER_SECURITY,
        "resources": podspec.resources(settings, cpu="250m", memory="512Mi"),
        "terminationMessagePolicy": "File",
        "volumeMounts": [*mounts, podspec.mount("tmp", "/tmp", read_only=False)],  # noqa: S108 - in the pod
    }
    pod |= {
        "restartPolicy": "Never",
        "containers": [container],
        "volumes": [*volumes, podspec.scratch("tmp", size=reading.scratch)],
    }
    return pod
