"""Install the chart and the quickstart, and remove them again."""

import json
import shutil
import tempfile
from collections.abc import Mapping, Sequence
from pathlib import Path

import yaml

from demo.command import output
from demo.errors import DemoError

ROOT = Path(__file__).resolve().parents[2]
CHART = ROOT / "charts" / "triton-operator"
CRDS = ROOT / "crds"
QUICKSTART = ROOT / "examples" / "quickstart"
ROLLOUT = ROOT / "examples" / "rollout"
TENSORRT = ROOT / "examples" / "tensorrt"
RELEASE = "triton-operator"
SAMPLE_JOB = "sample-models"
"""The Job of the quickstart that fills a volume with sample models."""
COLOURS_JOB = "colour-models"
"""The Job of the rollout that puts two versions of a model there."""
OPERATOR_NAMESPACE = "triton-operator-system"

NEEDED = frozenset({"operator", "engine-builder", "triton-cpu"})
COMPILER, TENSORRT_DOUBLE = "tensorrt-rtx", "triton-tensorrt-double"
"""A TensorRT that needs no GPU, and a Triton with a stand-in for its TensorRT backend."""
TRITON_RELEASE = "24.10"
"""Of the Triton in our images."""

Images = Mapping[str, str]
"""Reference of each image, by name: those that are NEEDED, and those for TensorRT without a GPU."""


def read_images(path: Path) -> Images:
    """Read the file that `make images` writes.

    Raises:
        DemoError: it is not there, or not complete.
    """
    try:
        found = json.loads(path.read_text())
        images = {name: image["reference"] for name, image in found.items()}
    except (OSError, ValueError, KeyError) as error:
        raise DemoError(f"{path} does not name the images ({error!r}): run `make images`") from error
    if missing := sorted(NEEDED - images.keys()):
        raise DemoError(f"{path} does not name the images {', '.join(missing)}: run `make images`")
    return images


def install_operator(images: Images) -> None:
    """Install or upgrade the chart, and wait until the operator runs."""
    # Helm installs a chart's CRDs, but never upgrades them.
    output(["kubectl", "apply", "--server-side", "--force-conflicts", "--filename", str(CRDS)])
    values = ["--values", "-"]
    command = ["helm", "upgrade", "--install", RELEASE, str(CHART), "--namespace", OPERATOR_NAMESPACE]
    options = ["--create-namespace", "--wait", "--timeout", "180s", *values]
    output([*command, *options], stdin=json.dumps(chart_values(images)))


def chart_values(images: Images) -> Mapping[str, object]:
    """Return the chart's values that name the images."""
    return {
        "image": dict(zip(("repository", "tag"), split_reference(images["operator"]), strict=True)),
        "engineBuilder": {
            "image": dict(zip(("repository", "tag"), split_reference(images["engine-builder"]), strict=True))
        },
    }


def split_reference(reference: str) -> tuple[str, str]:
    """Return repository and tag of an image reference."""
    repository, _, tag = reference.rpartition(":")
    return repository, tag


def apply_quickstart(images: Images, namespace: str) -> None:
    """Apply the quickstart with these images."""
    manifests = json.dumps({"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": namespace}})
    output(["kubectl", "apply", "--filename", "-"], stdin=manifests)
    _remove_outdated_job(namespace, image=images["engine-builder"])
    _apply_kustomization(QUICKSTART, images, namespace)


def write_rollout_sources(images: Images, namespace: str) -> None:
    """Put the rollout's two versions where the quickstart's sources lie."""
    job = [f"job/{COLOURS_JOB}", "--namespace", namespace]
    # An ended Job is not run again: its files may be those of an older script.
    output(["kubectl", "delete", *job, "--ignore-not-found"])
    _apply_kustomization(ROLLOUT, images, namespace)
    output(["kubectl", "wait", *job, "--for=condition=Complete", "--timeout", "120s"])


def start_rollout(namespace: str, model: str) -> None:
    """Apply version 1 of the rollout's model, with nothing left of an earlier demo's."""
    delete_model(model, namespace)
    apply_rollout("version-1.yaml", namespace)


def apply_rollout(manifest: str, namespace: str) -> None:
    """Apply one step of the rollout."""
    output(["kubectl", "apply", "--namespace", namespace, "--filename", str(ROLLOUT / manifest)])


def apply_tensorrt(images: Images, namespace: str, manifest: str) -> Sequence[str]:
    """Apply the servers of examples/tensorrt, with one pod of these images each, and a model.

    Returns:
        The servers' names.
    """
    servers = list(yaml.safe_load_all((TENSORRT / "servers.yaml").read_text()))
    for server in servers:
        server["spec"] |= {
            "image": images[TENSORRT_DOUBLE],
            "release": TRITON_RELEASE,
            "compilerImage": images[COMPILER],
            "replicas": 1,
            "builds": {"resources": {"requests": {"cpu": "100m", "memory": "256Mi"}}},
        }
    manifests = json.dumps({"apiVersion": "v1", "kind": "List", "items": servers})
    output(["kubectl", "apply", "--namespace", namespace, "--filename", "-"], stdin=manifests)
    output(["kubectl", "apply", "--namespace", namespace, "--filename", str(TENSORRT / manifest)])
    return [server["metadata"]["name"] for server in servers]


def delete_model(model: str, namespace: str) -> None:
    """Delete an InferenceModel."""
    output(["kubectl", "delete", f"tmodel/{model}", "--namespace", namespace, "--ignore-not-found"])


def _apply_kustomization(folder: Path, images: Images, namespace: str) -> None:
    with tempfile.TemporaryDirectory(prefix="demo-") as temporary:
        copy = Path(temporary) / folder.name
        shutil.copytree(folder, copy)
        _set_images(copy / "kustomization.yaml", images)
        output(["kubectl", "apply", "--namespace", namespace, "--kustomize", str(copy)])


def _set_images(path: Path, images: Images) -> None:
    """Do what `kustomize edit set image` does; kubectl has no such command."""
    kustomization = yaml.safe_load(path.read_text())
    for entry in kustomization["images"]:
        entry["newName"], entry["newTag"] = split_reference(images[entry["name"]])
    path.write_text(json.dumps(kustomization))  # with quotes: a tag may look like a number


def _remove_outdated_job(namespace: str, *, image: str) -> None:
    """Remove the Job of an earlier demo that ran another image: a Job's template cannot be changed."""
    job = ["job", SAMPLE_JOB, "--namespace", namespace, "--ignore-not-found"]
    path = "jsonpath={.spec.template.spec.containers[0].image}"
    if output(["kubectl", "get", *job, "--output", path]) not in {"", image}:
        output(["kubectl", "delete", *job])


def remove(namespace: str) -> None:
    """Remove the quickstart and the operator; the CRDs stay, as `helm uninstall` leaves them."""
    output(["kubectl", "delete", "namespace", namespace, "--ignore-not-found", "--timeout", "120s"])
    output(["helm", "uninstall", RELEASE, "--namespace", OPERATOR_NAMESPACE, "--ignore-not-found", "--wait"])
    output(["kubectl", "delete", "namespace", OPERATOR_NAMESPACE, "--ignore-not-found", "--timeout", "120s"])
