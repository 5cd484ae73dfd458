"""Versions are checked with samples of the user's own, and what is wrong with those is told and mended."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
from tests.builders import a_model
from tests.integration.eventually import eventually
from tests.integration.operator.stage import uri_of
from tests.onnx_models import SIZE

if TYPE_CHECKING:
    from tests.integration.operator.stage import Stage


def put_samples(stage: Stage, name: str, **arrays: Any) -> str:
    """Put an .npz file among the sources, and return its URI."""
    np.savez(stage.sources() / name, **arrays)
    return uri_of(name)


def some_rows(count: int) -> Any:
    return np.linspace(-1, 1, count * SIZE, dtype=np.float32).reshape(count, SIZE)


def test_a_version_is_checked_with_the_users_own_samples_which_go_with_it(stage: Stage) -> None:
    stage.set_up()
    uri = put_samples(stage, "samples.npz", x=some_rows(5))
    stage.apply(a_model("tested").with_version(1, stage.put_model("1.onnx", 2.0)).with_samples(uri))
    found = stage.wait_ready("InferenceModel", "tested")
    check = found["status"]["versions"][0]["checks"][0]
    assert check["reason"] == "Succeeded"
    assert check["message"].endswith("over 8 samples, 5 of them your own")
    entry = stage.volume() / "store" / check["samples"]
    assert (entry / "MANIFEST").is_file()
    engines = {each["metadata"]["name"] for each in stage.kube.list("Engine")}
    assert stage.kube.get("ModelRepository", "default")["status"]["engines"] == len(engines) == 1

    stage.kube.delete("InferenceModel", "tested")

    def gone() -> None:
        assert not entry.exists()
        assert not [j for j in stage.kube.list("Job") if j["metadata"]["name"].startswith(entry.name)]

    eventually(gone, within=60, because=stage.explain)


def test_samples_that_are_missing_or_wrong_stall_the_check_until_they_are_mended(stage: Stage) -> None:
    stage.set_up()
    model = a_model("tested").with_version(1, stage.put_model("1.onnx", 2.0))
    stage.apply(model.with_samples(uri_of("samples.npz")))
    stage.wait_condition("InferenceModel", "tested", "Stalled", "True", reason="SourceNotFound")
    assert "correct check.samples.uri" in stage.message("InferenceModel", "tested")
    put_samples(stage, "samples.npz", x=some_rows(1).astype(np.float64))
    stage.wait_condition("InferenceModel", "tested", "Stalled", "True", reason="InvalidSamples")
    assert "x is float64, the model takes float32" in stage.message("InferenceModel", "tested")
    put_samples(stage, "samples.npz", x=some_rows(1))
    found = stage.wait_ready("InferenceModel", "tested")
    assert found["status"]["versions"][0]["checks"][0]["message"].endswith("1 of them your own")
    assert set(stage.served_factors("tested").values()) == {2.0}
