"""Renders the chart with the real helm."""

from __future__ import annotations

import dataclasses
import functools
import json
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

import yaml

ROOT = Path(__file__).resolve().parents[2]
CHART = ROOT / "charts" / "triton-operator"
FULL_VALUES = Path(__file__).with_name("full-values.yaml")

Object = dict[str, Any]
Values = Object | Path | None
"""Values as they are, a file of them, or none."""

CLUSTER_SCOPED = frozenset({"ClusterRole", "ClusterRoleBinding", "CustomResourceDefinition"})


@dataclasses.dataclass(frozen=True)
class Rendered:
    """The objects of a release."""

    objects: tuple[Object, ...]

    def all(self, kind: str) -> list[Object]:
        return [found for found in self.objects if found["kind"] == kind]

    def one(self, kind: str) -> Object:
        (found,) = self.all(kind)
        return found

    @property
    def pod(self) -> Object:
        """The operator's pod template."""
        found: Object = self.one("Deployment")["spec"]["template"]
        return found

    @property
    def container(self) -> Object:
        found: Object
        (found,) = self.pod["spec"]["containers"]
        return found


@functools.cache
def binary() -> str:
    """Return the path of helm; it is built once for all and then cached."""
    command = [sys.executable, str(ROOT / "hack" / "localcluster"), "binaries", "helm"]
    found = subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True)
    return found.stdout.strip()


def run(*arguments: str) -> subprocess.CompletedProcess[str]:
    """Run helm, without what the user's own helm has set."""
    with tempfile.TemporaryDirectory() as home:
        environment = {"HOME": home, "PATH": "/usr/bin:/bin", "KUBECONFIG": "/dev/null"}
        return subprocess.run(
            [binary(), *arguments], check=False, capture_output=True, text=True, env=environment
        )


def template(
    values: Values = None,
    *,
    release: str = "triton-operator",
    namespace: str = "operators",
    kubernetes: str = "1.35.0",
) -> subprocess.CompletedProcess[str]:
    """Run `helm template` with values or a file of them."""
    with tempfile.NamedTemporaryFile("w", suffix=".json") as file:
        json.dump(values if isinstance(values, dict) else {}, file)  # JSON: YAML without its surprises
        file.flush()
        given = str(values) if isinstance(values, Path) else file.name
        options = ("--namespace", namespace, "--kube-version", kubernetes, "--values", given)
        return run("template", release, str(CHART), *options)


def render(values: Values = None, **options: str) -> Rendered:
    """Return what a release would consist of."""
    done = template(values, **options)
    assert done.returncode == 0, done.stderr
    return Rendered(tuple(found for found in yaml.safe_load_all(done.stdout) if found))


def refusal(values: Object, **options: str) -> str:
    """Return helm's message about values that it must not take."""
    done = template(values, **options)
    assert done.returncode != 0, "helm took these values"
    return done.stderr
