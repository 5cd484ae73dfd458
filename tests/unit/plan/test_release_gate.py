"""The release gate in the pods of a server with GPUs, and what its refusal says to people."""

from __future__ import annotations

import subprocess
from typing import Any

import pytest
from tests.builders import a_server
from tests.observed import a_pod, server

from engine_builder import check_release
from triton_operator.plan import podspec, release_gate, trial, triton_workload
from triton_operator.resources.gpu import TargetStatus

Object = dict[str, Any]

A10 = TargetStatus(
    product="NVIDIA-A10", compute_capability="8.6", memory_mib=23028, resource="nvidia.com/gpu"
)


def pod_of(**spec: Any) -> Object:
    found = server(a_server("a10").with_spec(**spec))
    deployment = triton_workload.deployment(
        found, release="24.10", claim="models", secret="key", replicas=1, hardware=A10
    )
    pod: Object = deployment["spec"]["template"]["spec"]
    return pod


def gate_of(**spec: Any) -> Object:
    (found,) = pod_of(gpu={}, **spec)["initContainers"]
    return dict(found)


def a_refused_pod(**more: Any) -> Object:
    ended = {"exitCode": 10, "message": "TensorRT 10.9.0.34 here, 10.3.0.26 there"}
    waiting = {"waiting": {"reason": "CrashLoopBackOff"}}
    status = {"name": "release", "state": waiting, "lastState": {"terminated": ended}} | more
    return a_pod("triton-a10-1", container="triton", initContainerStatuses=[status])


def test_only_servers_with_gpus_have_a_gate() -> None:
    assert "initContainers" not in pod_of()
    assert [each["name"] for each in pod_of(gpu={})["initContainers"]] == ["release"]


def test_gate_runs_in_tritons_image_restricted_and_without_a_gpu() -> None:
    gate = gate_of(image="mirror/triton:24.10", imagePullPolicy="Never")
    assert (gate["image"], gate["imagePullPolicy"]) == ("mirror/triton:24.10", "Never")
    assert gate["securityContext"] == podspec.CONTAINER_SECURITY
    assert gate["volumeMounts"] == [{"name": "repository", "mountPath": "/repository", "readOnly": True}]
    assert "nvidia.com/gpu" not in str(gate["resources"])
    assert gate["args"][1] == "/repository/servers/a10/24.10"


def test_gate_finds_libraries_where_triton_does() -> None:
    env = [
        {"name": "LD_LIBRARY_PATH", "value": "/opt/$(X)"},
        {"name": "NVIDIA_VISIBLE_DEVICES", "value": "all"},
    ]
    variables = {each["name"]: each["value"] for each in gate_of(env=env)["env"]}
    assert variables == {"LD_LIBRARY_PATH": "/opt/$$(X)", "NVIDIA_VISIBLE_DEVICES": "void"}


@pytest.mark.parametrize(
    ("python3", "code"), [("exit 10", 10), ("exit 1", 0), ("kill -9 $$", 0), ("exit 0", 0), (None, 0)]
)
def test_only_a_refusal_holds_up_a_pod(tmp_path: Any, python3: str | None, code: int) -> None:
    (tmp_path / "sh").symlink_to("/bin/sh")
    if python3 is not None:
        (tmp_path / "python3").write_text(f"#!/bin/sh\n{python3}\n")
        (tmp_path / "python3").chmod(0o755)
    gate = gate_of()
    run = subprocess.run([*gate["command"], *gate["args"]], env={"PATH": str(tmp_path)}, check=False)
    assert run.returncode == code


def test_gate_and_operator_mean_the_same_candidates() -> None:
    assert trial.is_trial(f"model{check_release.CANDIDATE}")


def test_refusal_says_what_the_gate_said_and_what_to_do() -> None:
    found = release_gate.refusal(server(a_server("a10")), [a_pod("other"), a_refused_pod()])
    assert found is not None
    assert found.reason == "ReleaseMismatch"
    for words in ("pod triton-a10-1", "10.3.0.26 there", "spec.release", "spec.compilerImage", "24.10"):
        assert words in found.message


def test_refusal_stands_while_the_gate_looks_again_and_goes_when_it_lets_the_pod_start() -> None:
    found = server(a_server("a10"))
    again = a_refused_pod(state={"running": {}})
    passed = a_refused_pod(state={"terminated": {"exitCode": 0}})
    gone = a_refused_pod()
    gone["metadata"]["deletionTimestamp"] = "2026-07-01T12:00:00Z"
    assert release_gate.refusal(found, [again]) is not None
    assert release_gate.refusal(found, [passed]) is None
    assert release_gate.refusal(found, [gone]) is None
