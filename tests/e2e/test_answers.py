"""Real nets on real pods give the answers that the onnx wheel ships for them."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest
import tritonclient.grpc
from tests.builders import a_model
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
        assert version["checks"][0]["reason"] == "Succeeded"


def test_others_can_not_control_what_is_loaded(shared: Stage) -> None:
    pod = shared.pod_names()[0]
    with shared.reached(f"pod/{pod}", GRPC) as addresses:
        client = tritonclient.grpc.InferenceServerClient(addresses[GRPC])
        with pytest.raises(InferenceServerException, match="restricted"):
            client.unload_model("resnet50")
        client.close()


def test_model_whose_content_was_built_before_is_served_without_a_build(guest: Stage) -> None:
    first, second = guest.put_model("equal-1.onnx", 8.0), guest.put_model("equal-2.onnx", 8.0)
    guest.apply(a_model("first").with_version(1, first))
    guest.wait_ready("InferenceModel", "first")
    guest.apply(a_model("second").with_version(5, second))
    guest.wait_ready("InferenceModel", "second")
    assert set(guest.served_factors("second").values()) == {8.0}
    (engine,) = guest.version_of("second", 5)["engines"]
    assert [engine] == guest.version_of("first")["engines"]
    assert guest.kube.get("Engine", engine)["status"]["attempt"] == 1
