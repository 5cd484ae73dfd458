"""Jobs: one per attempt at an engine, at a source's digest, or at samples. Created once, never changed."""

from __future__ import annotations

from collections.abc import Mapping

from triton_operator.plan import names, podspec, uri
from triton_operator.plan.podspec import Images, Manifest
from triton_operator.plan.samples import Entry
from triton_operator.resources.common import Resource
from triton_operator.resources.engine import Engine
from triton_operator.resources.inference_model import InferenceModel
from triton_operator.resources.model_repository import ModelRepository, PrepareSettings
from triton_operator.resources.version import Version


def prepare(
    *, engine: Engine, attempt: int, claim: str, settings: PrepareSettings, images: Images
) -> Manifest:
    """Return the Job that prepares an engine from its source."""
    source = uri.parse(engine.spec.source.uri)
    arguments = [
        "prepare",
        f"--repository={podspec.REPOSITORY_MOUNT}",
        f"--engine={engine.metadata.name}",
        f"--key={engine.spec.key}",
        f"--source={podspec.literal(engine.spec.source.uri)}",
        f"--source-root={podspec.SOURCE_MOUNT}",
        f"--sha256={engine.spec.source.sha256}",
        "--staging-uid=$(POD_UID)",
    ]
    labels = names.labels("prepare", engine=engine.metadata.name)
    pod = _pod(arguments, source=source.claim, repository=claim, settings=settings, images=images)
    return _job(engine, base=engine.metadata.name, attempt=attempt, labels=labels, pod=pod, settings=settings)


def resolve(
    *, model: InferenceModel, version: Version, attempt: int, settings: PrepareSettings, images: Images
) -> Manifest:
    """Return the Job that finds out the digest of a version's source."""
    source = uri.parse(version.source.uri)
    base = names.resolve_name(model_uid=model.metadata.uid, number=version.number, uri=version.source.uri)
    arguments = [
        "resolve",
        f"--source={podspec.literal(version.source.uri)}",
        f"--source-root={podspec.SOURCE_MOUNT}",
    ]
    labels = {**names.labels("resolve"), names.RESOLVE: base}
    pod = _pod(arguments, source=source.claim, repository=None, settings=settings, images=images)
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
    arguments = [
        "reference",
        f"--repository={podspec.REPOSITORY_MOUNT}",
        f"--engine={engine}",
        f"--entry={entry.name}",
        f"--key={entry.key}",
        f"--source={podspec.literal(samples.uri)}",
        f"--source-root={podspec.SOURCE_MOUNT}",
        *([f"--sha256={samples.sha256}"] if samples.sha256 is not None else []),
        "--staging-uid=$(POD_UID)",
    ]
    source = uri.parse(samples.uri).claim
    pod = _pod(arguments, source=source, repository=repository.claim_name, settings=settings, images=images)
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
    own = {**labels, names.ATTEMPT: str(attempt), names.GENERATION: str(owner.metadata.generation)}
    return {
        "apiVersion": "batch/v1",
        "kind": "Job",
        "metadata": podspec.metadata(names.job_name(base, attempt), owner, own),
        "spec": {
            # Attempts are ours to count: a retry inside the Job would hide its reason.
            "backoffLimit": 0,
            "podReplacementPolicy": "Failed",
            "activeDeadlineSeconds": settings.timeout_seconds,
            "template": {"metadata": {"labels": dict(labels)}, "spec": pod},
        },
    }


def _pod(
    arguments: list[str], *, source: str, repository: str | None, settings: PrepareSettings, images: Images
) -> Manifest:
    """Return a pod that reads the claim of a source, and writes to that of a repository if given."""
    volumes = [podspec.claim_volume("source", source, read_only=True)]
    mounts = [podspec.mount("source", podspec.SOURCE_MOUNT, read_only=True)]
    if repository is not None:
        volumes.append(podspec.claim_volume("repository", repository, read_only=False))
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
        "volumes": [*volumes, podspec.scratch("tmp", size="1Gi")],
    }
    return pod
