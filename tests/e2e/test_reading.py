"""What kubectl shows of the four kinds; run with `-s` it prints what the documents quote."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest
from tests.e2e.cluster import kubectl
from tests.e2e.stage import NETS

if TYPE_CHECKING:
    from tests.e2e.stage import Stage

SHORT = {
    "InferenceModel": "tmodel",
    "TritonServer": "tserver",
    "ModelRepository": "trepo",
    "Engine": "tengine",
}
COLUMNS = {
    "InferenceModel": ("NAME", "SERVERS", "VERSIONS", "SERVING", "READY", "REASON", "AGE"),
    "TritonServer": ("NAME", "PODS", "MODELS", "RELEASE", "READY", "REASON", "AGE"),
    "ModelRepository": ("NAME", "CLAIM", "ENGINES", "FREE", "READY", "REASON", "AGE"),
    "Engine": ("NAME", "MODELS", "SIZE", "READY", "AGE"),
}


def read(stage: Stage, *arguments: str) -> str:
    """Return what kubectl prints, and print it for those who write the documents."""
    shown = kubectl("--namespace", stage.namespace, *arguments).stdout
    print(f"\n$ kubectl {' '.join(arguments)}\n{shown}")
    return shown


@pytest.mark.parametrize("kind", SHORT)
def test_get_shows_one_line_for_people(shared: Stage, kind: str) -> None:
    header, *lines = read(shared, "get", SHORT[kind]).splitlines()
    for column in COLUMNS[kind]:
        assert column in header.split()
    ours = [line for line in lines if any(name in line for name in (*NETS, "default"))]
    assert ours
    assert all("True" in line for line in ours)


@pytest.mark.parametrize("kind", SHORT)
def test_describe_tells_conditions(shared: Stage, kind: str) -> None:
    name = shared.kube.list(kind)[0]["metadata"]["name"]
    shown = read(shared, "describe", SHORT[kind], name)
    for word in ("Conditions:", "Ready", "Reconciling", "Stalled", "Message:", "Events:"):
        assert word in shown


@pytest.mark.parametrize("kind", SHORT)
def test_explain_documents_every_field(shared: Stage, kind: str) -> None:
    for part in ("", ".spec", ".status"):
        shown = read(shared, "explain", f"{kind.lower()}{part}")
        assert "DESCRIPTION:" in shown
        assert "<empty>" not in shown.split("FIELDS:")[0] or not part
    everything = read(shared, "explain", f"{kind.lower()}.spec", "--recursive")
    assert "<" in everything


def test_get_all_of_the_category_and_wait(shared: Stage) -> None:
    shown = read(shared, "get", ",".join(SHORT.values()))
    for net in NETS:
        assert net in shown
        done = kubectl(
            "-n", shared.namespace, "wait", "--for=condition=Ready", f"tmodel/{net}", "--timeout=30s"
        )
        assert "condition met" in done.stdout
