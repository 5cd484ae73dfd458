"""OpenVINO through the installed chart: a Job converts models, and OpenVINO answers in Triton pods."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest
from tests.builders import a_model
from tests.e2e.samples import light

if TYPE_CHECKING:
    from tests.e2e.stage import Stage


def test_net_is_converted_and_answers_as_the_wheel_says(guest: Stage) -> None:
    sample = light("resnet50")
    uri = guest.put("resnet50-for-openvino.onnx", sample.path.read_bytes())
    guest.apply(a_model("converted").with_version(1, uri).with_spec(backend="OpenVINO"))
    guest.wait_ready("InferenceModel", "converted")
    for pod in guest.pod_names():
        sample.compare(guest.ask(pod, "converted", sample, protocol="grpc"))
    version = guest.version_of("converted")
    (engine,) = [each for each in version["engines"] if each.startswith("openvino-")]
    status = guest.kube.get("Engine", engine)["status"]
    assert (status["target"], status["attempt"]) == ("cpu", 1)
    assert [check["reason"] for check in version["checks"]] == ["Succeeded"]


@pytest.mark.parametrize("serving", [{}, {"dynamicBatching": {}}], ids=["free", "together"])
def test_second_version_takes_over(guest: Stage, serving: dict[str, object]) -> None:
    name = "openvino-together" if serving else "openvino-free"
    model = a_model(name).with_spec(backend="OpenVINO", serving=serving)
    model = model.with_version(1, guest.put_model(f"{name}-1.onnx", 2.0))
    guest.apply(model)
    guest.wait_ready("InferenceModel", name)
    assert set(guest.served_factors(name).values()) == {2.0}
    guest.apply(model.with_version(2, guest.put_model(f"{name}-2.onnx", 3.0)))
    guest.wait_ready("InferenceModel", name)
    assert set(guest.served_factors(name).values()) == {3.0}
