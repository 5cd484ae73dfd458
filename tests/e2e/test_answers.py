"""Real nets on real pods give the answers that the onnx wheel ships for them."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest
import tritonclient.grpc
from tests.e2e.cluster import forwarded
from tests.e2e.samples import light
from tests.e2e.stage import GRPC, NETS
from tritonclient.utils import InferenceServerException

if TYPE_CHECKING:
    from tests.e2e.stage import Stage


@pytest.mark.parametrize("protocol", ["http", "grpc"])
@pytest.mark.parametrize("net", NETS)
def test_every_pod_answers_as_the_wheel_says(shared: Stage, net: str, protocol: str) -> None:
    sample = light(net)
    pods = shared.pod_names()
    assert len(pods) == 2
    for pod in pods:
        sample.compare(shared.ask(pod, net, sample, protocol=protocol))


def test_pods_are_spread_over_the_nodes(shared: Stage) -> None:
    nodes = {pod["spec"]["nodeName"] for pod in shared.pods()}
    assert len(nodes) == 2


def test_status_counts_every_pod(shared: Stage) -> None:
    for net in NETS:
        version = shared.version_of(net)
        assert (version["state"], version["pods"]) == ("Promoted", "2/2")
        assert version["check"]["reason"] == "Succeeded"


def test_others_can_not_control_what_is_loaded(shared: Stage) -> None:
    pod = shared.pod_names()[0]
    with forwarded(shared.namespace, f"pod/{pod}", GRPC) as addresses:
        client = tritonclient.grpc.InferenceServerClient(addresses[GRPC])
        with pytest.raises(InferenceServerException, match="restricted"):
            client.unload_model("resnet50")
        client.close()
