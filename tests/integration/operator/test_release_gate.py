"""The release gate: Triton's image has another TensorRT than the plans of its tree were built with.

Plans are built by the real TensorRT for RTX, whose library also stands for the one of Triton's image.
"""

from __future__ import annotations

import shutil
from importlib.metadata import files
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
from tests.integration.eventually import eventually
from tests.integration.operator.test_tensorrt import A10, a_tensorrt_model, engines, set_up
from tests.libnvinfer import a_library

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from tests.integration.operator.stage import Stage

OTHER = "10.3.0.26"


@pytest.fixture
def image(stage: Stage, tmp_path: Path) -> Iterator[Callable[[str], None]]:
    """Return what puts another TensorRT into Triton's image."""
    (tmp_path / "other").mkdir()
    a_library(tmp_path / "other" / "libnvinfer.so.10", OTHER)
    (tmp_path / "same").mkdir()
    (real,) = (f for f in files("tensorrt-rtx-cu13-libs") or () if f.name == "libtensorrt_rtx.so.1")
    (tmp_path / "same" / "libnvinfer.so.1").symlink_to(Path(real.locate()))
    environment = stage.kubelet.switches.environment

    def has(which: str) -> None:
        environment[stage.kube.namespace] = {"LD_LIBRARY_PATH": str(tmp_path / which)}

    yield has
    environment.pop(stage.kube.namespace, None)


def test_image_that_cannot_run_the_plans_is_refused_until_it_can(
    stage: Stage, image: Callable[[str], None]
) -> None:
    image("other")
    set_up(stage, default=A10)
    stage.apply(a_tensorrt_model("text").with_version(1, stage.put_model("1.onnx", 2.0)))
    stage.wait_condition("TritonServer", "default", "Stalled", "True", reason="ReleaseMismatch")
    message = stage.message("TritonServer", "default")
    for words in (f"TensorRT {OTHER}", "(1.7.", "spec.release", "spec.compilerImage", "tensorrt-"):
        assert words in message
    assert not stage.tritons()
    (plan,) = (stage.volume() / "store").glob("tensorrt-*")
    shutil.rmtree(plan)

    def built_anew() -> None:
        assert (plan / "MANIFEST").is_file()

    eventually(built_anew, within=60, because=stage.explain)
    image("same")
    stage.wait_ready("TritonServer", "default")
    stage.wait_ready("InferenceModel", "text")
    assert engines(stage)[plan.name]["status"]["attempt"] == 2


def test_pods_of_the_former_image_serve_on_when_the_new_one_is_refused(
    stage: Stage, image: Callable[[str], None]
) -> None:
    image("same")
    set_up(stage, default=A10)
    stage.apply(a_tensorrt_model("text").with_version(1, stage.put_model("1.onnx", 2.0)))
    stage.wait_ready("InferenceModel", "text")
    (before,) = stage.tritons()
    with stage.asked({"text": (2.0,)}):
        image("other")
        stage.kube.patch("TritonServer", "default", {"spec": {"image": "mirror/triton:24.10-other"}})
        stage.wait_condition("TritonServer", "default", "Stalled", "True", reason="ReleaseMismatch")
        assert set(stage.tritons()) == {before}
        image("same")
        stage.wait_ready("TritonServer", "default")
