from pathlib import Path
from typing import Any

import pytest

from localcluster.provisioner import Claim, persistent_volume, released_volumes, waiting_claims


def a_claim(**spec: Any) -> dict[str, Any]:
    return {
        "metadata": {"namespace": "team", "name": "models", "uid": "u1"},
        "spec": {"storageClassName": "shared", "resources": {"requests": {"storage": "1Gi"}}, **spec},
        "status": {"phase": "Pending"},
    }


def a_volume(phase: str, *, provisioner: str = "localcluster.triton-operator/shared") -> dict[str, Any]:
    annotations = {"pv.kubernetes.io/provisioned-by": provisioner}
    return {"metadata": {"name": "pvc-u1", "annotations": annotations}, "status": {"phase": phase}}


def test_pending_claim_of_the_class_is_provided() -> None:
    assert waiting_claims([a_claim()]) == [Claim("team", "models", "u1", "1Gi")]


@pytest.mark.parametrize(
    "spec", [{"storageClassName": "other"}, {"storageClassName": ""}, {"volumeName": "pv"}]
)
def test_claim_of_another_class_or_volume_is_left_alone(spec: dict[str, Any]) -> None:
    assert waiting_claims([a_claim(**spec)]) == []


def test_claim_that_is_being_deleted_gets_no_volume() -> None:
    claim = a_claim()
    claim["metadata"]["deletionTimestamp"] = "2026-01-01T00:00:00Z"
    assert waiting_claims([claim]) == []


def test_volume_is_bound_to_this_claim_and_no_later_one_of_its_name() -> None:
    volume = persistent_volume(Claim("team", "models", "u1", "1Gi"), Path("/x"))
    assert volume["spec"]["claimRef"]["uid"] == "u1"


def test_only_our_released_volumes_are_withdrawn() -> None:
    volumes = [a_volume("Bound"), a_volume("Released", provisioner="other"), a_volume("Released")]
    assert released_volumes(volumes) == ["pvc-u1"]
    assert released_volumes(volumes[:2]) == []
