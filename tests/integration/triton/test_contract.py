"""What the operator rests on, asked of the double and of the real server with the same calls."""

from __future__ import annotations

import shutil
import time
from concurrent import futures
from typing import TYPE_CHECKING, Any

import grpc
import numpy as np
import onnxruntime
import pytest
from tests.integration.eventually import eventually
from tests.integration.triton.conftest import IDENTITY
from tests.integration.triton.ground import FINGERPRINT, a_config, slow_config
from tests.onnx_models import SIZE
from tritonclient.grpc import model_config_pb2, service_pb2
from tritonclient.utils import deserialize_bytes_tensor

if TYPE_CHECKING:
    from collections.abc import Callable

    from tests.integration.triton.ground import Ground


def laid_out(triton: Ground, name: str, versions: dict[int, str]) -> str:
    """Put a model into the tree without telling the server."""
    for number, engine in versions.items():
        triton.volume.link(name, number, engine)
    triton.volume.put_config(a_config(name, [*versions]))
    return name


def loaded(triton: Ground, name: str, versions: dict[int, str]) -> str:
    laid_out(triton, name, versions)
    triton.load(name)
    return name


def refused(call: Callable[[], object]) -> tuple[grpc.StatusCode, str]:
    with pytest.raises(grpc.RpcError) as caught:
        call()
    return caught.value.code(), caught.value.details()


# at start


def test_start_loads_what_lies_on_disk(triton: Ground) -> None:
    assert triton.states("good") == {"1": "READY", "2": "READY"}


def test_start_survives_a_broken_model_and_says_why(triton: Ground) -> None:
    assert triton.rows("bad")["1"][0] == "UNAVAILABLE"
    assert "model.onnx" in triton.rows("bad")["1"][1]


def test_start_loads_no_version_of_a_model_with_a_broken_one(triton: Ground) -> None:
    assert triton.settled("half")["2"] == "UNAVAILABLE"
    assert not triton.is_ready("half", 1)


def test_stray_directory_has_a_bare_row(triton: Ground) -> None:
    assert triton.rows("stray") == {"": ("", "")}


def test_server_is_ready_in_spite_of_a_broken_model(triton: Ground) -> None:
    assert triton.stub.ServerReady(service_pb2.ServerReadyRequest(), timeout=5).ready
    assert triton.stub.ServerLive(service_pb2.ServerLiveRequest(), timeout=5).live


def test_server_tells_the_name_that_it_was_given(triton: Ground) -> None:
    metadata = triton.stub.ServerMetadata(service_pb2.ServerMetadataRequest(), timeout=5)
    assert metadata.name == IDENTITY


# candidates: their configuration selects no version


def idle(triton: Ground, name: str, versions: dict[int, str]) -> str:
    """Put a model into the tree of which no version is selected."""
    for number, engine in versions.items():
        triton.volume.link(name, number, engine)
    triton.volume.put_config(a_config(name, []))
    return name


def test_start_leaves_a_candidate_alone(triton: Ground) -> None:
    assert triton.rows("good.candidate") == {}
    assert not triton.is_ready("good.candidate")


def test_load_of_a_candidate_without_an_override_is_refused_and_leaves_no_trace(triton: Ground) -> None:
    name = idle(triton, "idle.candidate", {2: "two"})
    assert triton.rows(name) == {"": ("", "")}
    code, text = refused(lambda: triton.load(name))
    assert code == grpc.StatusCode.INVALID_ARGUMENT
    assert f"at least one version must be available under the version policy of model '{name}'" in text
    assert triton.rows(name) == {}


def test_override_loads_a_candidate_beside_its_model(triton: Ground) -> None:
    name = loaded(triton, "tried", {1: "one"})
    candidate = idle(triton, "tried.candidate", {2: "two"})
    triton.load(candidate, a_config(candidate, [2]))
    assert triton.states(candidate) == {"2": "READY"}
    assert (triton.infer(name)[0], triton.infer(candidate)[0]) == (1, 2)
    assert refused(lambda: triton.infer(name, 2))[0] == grpc.StatusCode.NOT_FOUND


def test_version_is_loaded_while_its_candidate_is(triton: Ground) -> None:
    name = loaded(triton, "joined", {1: "one"})
    candidate = idle(triton, "joined.candidate", {2: "two"})
    triton.load(candidate, a_config(candidate, [2]))
    triton.volume.link(name, 2, "two")
    triton.load(name, a_config(name, [1, 2]))
    assert triton.states(name) == {"1": "READY", "2": "READY"}
    assert triton.states(candidate) == {"2": "READY"}
    triton.unload(candidate)
    assert triton.settled(candidate) == {"2": "UNAVAILABLE"}
    assert triton.infer(name)[0] == 2


def test_candidate_whose_directory_went_after_the_unload_is_forgotten(triton: Ground) -> None:
    candidate = idle(triton, "over.candidate", {1: "one"})
    triton.load(candidate, a_config(candidate, [1]))
    triton.unload(candidate)
    triton.settled(candidate)
    shutil.rmtree(triton.volume.tree / candidate)
    assert triton.rows(candidate) == {}


# restricted protocols


@pytest.mark.parametrize("metadata", [(), (("triton-grpc-protocol-triton-operator-key", "wrong"),)])
def test_control_needs_the_key(triton: Ground, metadata: tuple[tuple[str, str], ...]) -> None:
    stub = triton.stub
    expected = "This protocol is restricted, expecting header 'triton-grpc-protocol-triton-operator-key'"
    for call, request in (
        (stub.RepositoryIndex, service_pb2.RepositoryIndexRequest()),
        (stub.RepositoryModelLoad, service_pb2.RepositoryModelLoadRequest(model_name="good")),
        (stub.RepositoryModelUnload, service_pb2.RepositoryModelUnloadRequest(model_name="good")),
        (stub.ModelConfig, service_pb2.ModelConfigRequest(name="good")),
    ):
        answer = refused(lambda call=call, request=request: call(request, metadata=metadata, timeout=5))
        assert answer == (grpc.StatusCode.UNAVAILABLE, expected)


def test_answers_need_no_key(triton: Ground) -> None:
    assert triton.infer("good")[0] == 2
    assert triton.is_ready("good")


# configuration


def test_config_carries_the_fingerprint(triton: Ground) -> None:
    config = triton.config("good")
    assert config.parameters[FINGERPRINT].string_value == "aa"
    assert (config.name, config.backend, config.max_batch_size) == ("good", "onnxruntime", 4)
    assert list(config.version_policy.specific.versions) == [1, 2]
    assert [(group.name, group.count) for group in config.instance_group] == [("good_0", 1)]


def test_metadata_names_versions_and_tensors(triton: Ground) -> None:
    metadata = triton.stub.ModelMetadata(service_pb2.ModelMetadataRequest(name="good"), timeout=5)
    assert list(metadata.versions) == ["1", "2"]
    tensors = [(each.name, each.datatype, list(each.shape)) for each in (*metadata.inputs, *metadata.outputs)]
    assert tensors == [("x", "FP32", [-1, SIZE]), ("y", "FP32", [-1, SIZE])]


@pytest.mark.parametrize(
    ("name", "text"), [("bad", "'bad' has no available versions"), ("missing", "'missing' is not found")]
)
def test_config_of_what_does_not_serve_is_not_found(triton: Ground, name: str, text: str) -> None:
    assert refused(lambda: triton.config(name)) == (
        grpc.StatusCode.NOT_FOUND,
        f"Request for unknown model: {text}",
    )


# loading


def test_load_of_what_lies_on_disk(triton: Ground) -> None:
    name = laid_out(triton, "later", {1: "one"})
    assert triton.rows(name) == {"": ("", "")}
    assert not triton.is_ready(name)
    triton.load(name)
    assert triton.states(name) == {"1": "READY"}
    assert triton.is_ready(name, 1)


def test_load_without_news_does_nothing(triton: Ground) -> None:
    name = loaded(triton, "still", {1: "one"})
    triton.load(name)
    assert triton.states(name) == {"1": "READY"}


def test_override_adds_a_version_beside_the_old(triton: Ground) -> None:
    name = loaded(triton, "wider", {1: "one"})
    triton.volume.link(name, 2, "two")
    triton.load(name, a_config(name, [1, 2], fingerprint="bb"))
    assert triton.states(name) == {"1": "READY", "2": "READY"}
    assert triton.fingerprint(name) == "bb"
    assert triton.infer(name)[0] == 2


def test_override_narrows_and_the_version_goes_after_a_moment(triton: Ground) -> None:
    name = loaded(triton, "narrower", {1: "one", 2: "two"})
    triton.load(name, a_config(name, [2]))
    assert not triton.is_ready(name, 1)
    assert triton.states(name) == {"1": "UNLOADING", "2": "READY"}
    triton.settled(name)
    assert triton.rows(name) == {"1": ("UNAVAILABLE", "unloaded"), "2": ("READY", "")}


def test_override_that_names_an_absent_version_unloads_the_rest(triton: Ground) -> None:
    name = loaded(triton, "absent", {1: "one", 2: "two"})
    triton.load(name, a_config(name, [1, 9]))
    assert triton.settled(name) == {"1": "READY", "2": "UNAVAILABLE"}


def test_override_that_leaves_nothing_is_refused(triton: Ground) -> None:
    name = loaded(triton, "nothing", {1: "one"})
    code, text = refused(lambda: triton.load(name, a_config(name, [7])))
    assert code == grpc.StatusCode.INVALID_ARGUMENT
    assert "at least one version must be available under the version policy" in text
    assert triton.states(name) == {"1": "READY"}


def test_override_sticks_until_a_file_is_newer(triton: Ground) -> None:
    name = loaded(triton, "sticky", {1: "one", 2: "two"})
    triton.load(name, a_config(name, [1], fingerprint="bb"))
    triton.load(name)
    assert triton.fingerprint(name) == "bb"
    assert triton.settled(name)["2"] == "UNAVAILABLE"
    time.sleep(0.05)
    triton.volume.put_config(a_config(name, [1, 2], fingerprint="cc"))
    triton.load(name)
    assert triton.fingerprint(name) == "cc"
    assert triton.states(name) == {"1": "READY", "2": "READY"}


def test_broken_version_is_refused_with_a_reason_and_the_old_set_serves_on(triton: Ground) -> None:
    name = loaded(triton, "guarded", {1: "one"})
    triton.volume.link(name, 2, "two")
    triton.volume.link(name, 3, "broken")
    code, text = refused(lambda: triton.load(name, a_config(name, [1, 2, 3], fingerprint="bb")))
    assert code == grpc.StatusCode.INVALID_ARGUMENT
    assert f"load failed for model '{name}': version 3 is at UNAVAILABLE state: " in text
    assert "model.onnx" in text
    assert triton.settled(name)["1"] == "READY"
    assert not triton.is_ready(name, 2)
    assert triton.rows(name)["3"][0] == "UNAVAILABLE"
    assert "model.onnx" in triton.rows(name)["3"][1]
    assert triton.fingerprint(name) == "aa"
    assert triton.infer(name)[0] == 1


def test_broken_version_keeps_all_out_of_what_serves_nothing_until_it_is_not_asked_for(
    triton: Ground,
) -> None:
    name = laid_out(triton, "barred", {1: "one", 2: "broken"})
    code, text = refused(lambda: triton.load(name))
    assert code == grpc.StatusCode.INVALID_ARGUMENT
    assert f"load failed for model '{name}': version 2 is at UNAVAILABLE state: " in text
    assert triton.states(name) == {"1": "UNLOADING", "2": "UNAVAILABLE"}
    assert triton.settled(name) == {"1": "UNAVAILABLE", "2": "UNAVAILABLE"}
    assert triton.rows(name)["1"] == ("UNAVAILABLE", "unloaded")
    triton.load(name, a_config(name, [1]))
    assert triton.states(name) == {"1": "READY", "2": "UNAVAILABLE"}
    assert "model.onnx" in triton.rows(name)["2"][1]


def test_version_is_tried_again_once_it_is_mended(triton: Ground) -> None:
    name = laid_out(triton, "mended", {1: "broken"})
    refused(lambda: triton.load(name))
    triton.volume.link(name, 1, "one")
    triton.load(name)
    assert triton.rows(name) == {"1": ("READY", "")}


@pytest.mark.parametrize("name", ["missing", "stray"])
def test_load_of_what_is_no_model_is_refused(triton: Ground, name: str) -> None:
    assert refused(lambda: triton.load(name)) == (
        grpc.StatusCode.INTERNAL,
        f"failed to load '{name}', failed to poll from model repository",
    )


def test_load_with_a_dangling_link_is_refused(triton: Ground) -> None:
    name = laid_out(triton, "dangling", {1: "nowhere"})
    assert refused(lambda: triton.load(name))[0] == grpc.StatusCode.INTERNAL


# while a load goes on


def test_load_that_takes_long_holds_up_nothing_else(triton: Ground) -> None:
    name, other = laid_out(triton, "slow", {1: "one"}), laid_out(triton, "meanwhile", {1: "one"})
    with triton.loading(name, slow_config(name, [1])):
        assert not triton.is_ready(name)
        assert triton.infer("good")[0] == 2
        triton.load(other)
        assert triton.infer(other)[0] == 1
        assert triton.states(name) == {"1": "LOADING"}
    assert triton.states(name) == {"1": "READY"}


def test_version_that_is_added_is_loading_while_the_old_one_serves(triton: Ground) -> None:
    name = laid_out(triton, "slow-added", {1: "one"})
    triton.load(name, slow_config(name, [1]))
    triton.volume.link(name, 2, "two")
    with triton.loading(name, slow_config(name, [1, 2])):
        assert triton.states(name) == {"1": "READY", "2": "LOADING"}
        assert triton.infer(name)[0] == 1
    assert triton.infer(name)[0] == 2


def test_load_that_is_given_up_goes_on_and_an_unload_waits_for_it(triton: Ground) -> None:
    name = laid_out(triton, "slow-given-up", {1: "one"})
    code, _ = refused(lambda: triton.load(name, slow_config(name, [1]), timeout=0.3))
    assert code == grpc.StatusCode.DEADLINE_EXCEEDED
    eventually(lambda: triton.check_loading(name))
    triton.unload(name)
    assert triton.settled(name) == {"1": "UNAVAILABLE"}


def test_version_that_is_reloaded_shows_as_ready_meanwhile(triton: Ground) -> None:
    name = laid_out(triton, "slow-reloaded", {1: "one"})
    triton.load(name)
    with futures.ThreadPoolExecutor(1) as pool:
        load = pool.submit(triton.load, name, slow_config(name, [1], fingerprint="bb"))
        time.sleep(0.3)
        assert (triton.states(name), triton.fingerprint(name)) == ({"1": "READY"}, "aa")
        assert triton.infer(name)[0] == 1
        assert not load.done()
        load.result()
    assert triton.fingerprint(name) == "bb"


# what reloads: a version that is loaded again has answered nothing yet


def used(triton: Ground, name: str) -> str:
    loaded(triton, name, {1: "one"})
    triton.use(name)
    assert triton.inferences(name) == {"1": 1}
    return name


def test_same_config_reloads_nothing(triton: Ground) -> None:
    name = used(triton, "reload-same")
    triton.load(name, a_config(name, [1]))
    triton.load(name)
    assert triton.inferences(name) == {"1": 1}


def test_added_version_reloads_no_other(triton: Ground) -> None:
    name = used(triton, "reload-add")
    triton.volume.link(name, 2, "two")
    triton.volume.put_config(a_config(name, [1, 2]))
    triton.load(name, a_config(name, [1, 2]))
    assert triton.inferences(name) == {"1": 1, "2": 0}


def test_removed_version_reloads_no_other(triton: Ground) -> None:
    name = loaded(triton, "reload-remove", {1: "one", 2: "two"})
    triton.use(name, 1)
    triton.load(name, a_config(name, [1]))
    assert triton.inferences(name) == {"1": 1}


@pytest.mark.parametrize("change", [{"fingerprint": "bb"}, {"batch": 2}])
def test_other_config_reloads_every_version(triton: Ground, change: dict[str, Any]) -> None:
    name = used(triton, f"reload-{next(iter(change))}")
    triton.load(name, a_config(name, [1], **change))
    assert triton.inferences(name) == {"1": 0}


def test_new_file_beside_the_config_reloads_every_version(triton: Ground) -> None:
    name = used(triton, "reload-file")
    time.sleep(0.05)
    (triton.volume.tree / name / "labels.txt").write_text("cat\n")
    triton.load(name)
    assert triton.inferences(name) == {"1": 0}


def test_touched_store_entry_is_reloaded(triton: Ground) -> None:
    triton.volume.put_engine("touched", 1.0)
    name = loaded(triton, "reload-touched", {1: "touched"})
    triton.use(name)
    time.sleep(0.05)
    (triton.volume.root / "store/touched/model.onnx").chmod(0o600)
    triton.load(name, a_config(name, [1]))
    assert triton.inferences(name) == {"1": 0}


def test_added_link_ends_an_override(triton: Ground) -> None:
    name = used(triton, "link-ends")
    triton.load(name, a_config(name, [1], fingerprint="bb"))
    time.sleep(0.05)
    triton.volume.link(name, 2, "two")
    triton.load(name)
    assert triton.fingerprint(name) == "aa"


# labels


def labelled(triton: Ground, name: str, text: str, *, file: str = "labels_y.txt") -> None:
    config = a_config(name, [1])
    config.output[0].label_filename = file
    triton.volume.link(name, 1, "one")
    triton.volume.put_config(config)
    (triton.volume.tree / name / file).write_text(text)


def classes(triton: Ground, name: str, count: int) -> list[str]:
    """Ask for the highest classes of 1, 4, 3, 2."""
    request = service_pb2.ModelInferRequest(model_name=name)
    tensor = request.inputs.add(name="x", datatype="FP32", shape=[1, SIZE])
    tensor.contents.fp32_contents.extend([1, 4, 3, 2])
    request.outputs.add(name="y").parameters["classification"].int64_param = count
    response = triton.stub.ModelInfer(request, timeout=5)
    assert (response.outputs[0].datatype, list(response.outputs[0].shape)) == ("BYTES", [1, count])
    return [each.decode() for each in deserialize_bytes_tensor(response.raw_output_contents[0])]


def test_classes_are_called_by_their_labels(triton: Ground) -> None:
    labelled(triton, "labelled", "cat\ndog\nowl\nelk\n")
    triton.load("labelled")
    assert classes(triton, "labelled", 2) == ["4.000000:1:dog", "3.000000:2:owl"]


def test_classes_without_labels_are_numbers(triton: Ground) -> None:
    loaded(triton, "unlabelled", {1: "one"})
    assert classes(triton, "unlabelled", 1) == ["4.000000:1"]


def test_other_labels_are_read_when_the_configuration_names_another_file(triton: Ground) -> None:
    labelled(triton, "relabelled", "cat\ndog\nowl\nelk\n")
    triton.load("relabelled")
    labelled(triton, "relabelled", "Katze\nHund\nEule\nElch\n", file="labels_z.txt")
    triton.load("relabelled")
    assert classes(triton, "relabelled", 1) == ["4.000000:1:Hund"]


def test_file_of_labels_that_is_not_there_fails_the_load_and_the_old_set_serves_on(triton: Ground) -> None:
    labelled(triton, "lost-labels", "cat\ndog\nowl\nelk\n")
    triton.load("lost-labels")
    config = a_config("lost-labels", [1])
    config.output[0].label_filename = "gone.txt"
    code, text = refused(lambda: triton.load("lost-labels", config))
    assert code == grpc.StatusCode.INVALID_ARGUMENT
    path = triton.volume.tree / "lost-labels/gone.txt"
    assert f"failed to open text file for read {path}: No such file or directory" in text
    assert triton.rows("lost-labels") == {"1": ("READY", "")}
    assert classes(triton, "lost-labels", 1) == ["4.000000:1:dog"]


# unloading


def test_unload_is_over_after_a_moment(triton: Ground) -> None:
    name = loaded(triton, "leaving", {1: "one", 2: "two"})
    triton.unload(name)
    assert triton.states(name) == {"1": "UNLOADING", "2": "UNLOADING"}
    assert not triton.is_ready(name)
    assert triton.settled(name) == {"1": "UNAVAILABLE", "2": "UNAVAILABLE"}
    assert refused(lambda: triton.infer(name))[0] == grpc.StatusCode.NOT_FOUND
    triton.load(name)
    assert triton.states(name) == {"1": "READY", "2": "READY"}


def test_unload_of_the_unknown_is_fine(triton: Ground) -> None:
    triton.unload("missing")


def test_model_without_its_directory_serves_unlisted_until_it_is_unloaded(triton: Ground) -> None:
    name = loaded(triton, "homeless", {1: "one"})
    shutil.rmtree(triton.volume.tree / name)
    assert triton.rows(name) == {}
    assert triton.is_ready(name)
    assert refused(lambda: triton.load(name))[0] == grpc.StatusCode.INTERNAL
    triton.unload(name)
    assert not triton.is_ready(name)


# answers


def test_answers_are_those_of_onnxruntime(triton: Ground) -> None:
    values = np.random.default_rng(0).random((3, SIZE), dtype=np.float32)
    for number, engine in ((1, "one"), (2, "two")):
        session = onnxruntime.InferenceSession(triton.volume.root / "store" / engine / "model.onnx")
        expected = session.run(None, {"x": values})[0]
        version, answer = triton.infer("good", number, values=values)
        assert version == number
        np.testing.assert_array_equal(answer, expected)


def test_typed_contents_are_read(triton: Ground) -> None:
    request = service_pb2.ModelInferRequest(model_name="good", id="42")
    tensor = request.inputs.add(name="x", datatype="FP32", shape=[1, SIZE])
    tensor.contents.fp32_contents.extend([1, 2, 3, 4])
    response = triton.stub.ModelInfer(request, timeout=5)
    assert response.id == "42"
    assert np.frombuffer(response.raw_output_contents[0], dtype=np.float32).tolist() == [2, 4, 6, 8]


@pytest.mark.parametrize(
    ("shape", "text"),
    [
        ((1, 3), "unexpected shape for input 'x' for model 'good'. Expected [-1,4], got [1,3]."),
        ((5, SIZE), "inference request batch-size must be <= 4 for 'good'"),
    ],
)
def test_wrong_shape_is_refused(triton: Ground, shape: tuple[int, int], text: str) -> None:
    code, said = refused(lambda: triton.infer("good", values=np.ones(shape, dtype=np.float32)))
    assert code == grpc.StatusCode.INVALID_ARGUMENT
    assert text in said


@pytest.mark.parametrize(
    ("name", "version", "text"),
    [
        ("good", 9, "'good' version 9 is not found"),
        ("bad", None, "'bad' has no available versions"),
        ("missing", None, "'missing' is not found"),
    ],
)
def test_answer_of_what_does_not_serve_is_not_found(
    triton: Ground, name: str, version: int | None, text: str
) -> None:
    assert refused(lambda: triton.infer(name, version)) == (
        grpc.StatusCode.NOT_FOUND,
        f"Request for unknown model: {text}",
    )


def test_config_parameters_survive_the_round_trip(triton: Ground) -> None:
    config = a_config("round", [1])
    config.parameters["threshold"].string_value = "0.5"
    config.dynamic_batching.max_queue_delay_microseconds = 500
    config.instance_group[0].kind = model_config_pb2.ModelInstanceGroup.KIND_CPU
    laid_out(triton, "round", {1: "one"})
    triton.load("round", config)
    back = triton.config("round")
    assert back.parameters["threshold"].string_value == "0.5"
    assert back.dynamic_batching.max_queue_delay_microseconds == 500
