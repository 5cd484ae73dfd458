from __future__ import annotations

import copy
from typing import Any

from tests.builders import a_model, a_repository, a_server
from tests.nodes import A10, a_node
from tests.observed import NAMESPACE, a_job, a_pod, an_engine, engine_of, model, sha, stored

from triton_operator.controllers.cache import Cache
from triton_operator.controllers.queue import Key
from triton_operator.controllers.routes import keys_for, keys_on_repository, keys_on_server, keys_on_volume
from triton_operator.plan import names, nodes

Object = dict[str, Any]

DETECTOR = a_model("detector").with_servers("a10", "l4").with_version(1, "pvc://s/1.onnx", sha256=sha("1"))
CLASSIFIER = a_model("classifier").with_servers("l4").with_version(1, "pvc://s/2.onnx", sha256=sha("2"))
ENGINE = engine_of(model(DETECTOR), 1)


def key(kind: str, name: str) -> Key:
    return Key(kind, NAMESPACE, name)


def a_cluster() -> Cache:
    """Two servers on one repository; the detector is on both and uses an engine."""
    cache = Cache()
    used = {"versions": [{"number": 1, "state": "Promoted", "engines": [ENGINE.name]}]}
    for obj in (
        stored(a_repository("models")),
        stored(a_server("a10").on_repository("models")),
        stored(a_server("l4").on_repository("models")),
        stored(DETECTOR, status=used),
        stored(CLASSIFIER),
        an_engine(ENGINE),
    ):
        cache.put(obj)
    return cache


MODELS = {key("InferenceModel", "detector"), key("InferenceModel", "classifier")}
SERVERS = {key("TritonServer", "a10"), key("TritonServer", "l4")}


def get(cache: Cache, kind: str, name: str) -> Object:
    found = cache.get(kind, NAMESPACE, name)
    assert found is not None
    return found


def newer(obj: Object) -> Object:
    """Return an object as it is after another write."""
    found = copy.deepcopy(obj)
    found["metadata"]["resourceVersion"] = str(int(obj["metadata"]["resourceVersion"]) + 1)
    return found


def test_a_model_concerns_its_servers_its_engines_and_the_models_beside_it() -> None:
    cache = a_cluster()
    found = keys_for(cache, get(cache, "InferenceModel", "detector"))
    assert found == {*MODELS, *SERVERS, key("Engine", ENGINE.name)}


def test_a_status_that_another_wrote_wakes_nobody_else() -> None:
    cache = a_cluster()
    for kind, name in (("InferenceModel", "detector"), ("TritonServer", "l4"), ("ModelRepository", "models")):
        obj = get(cache, kind, name)
        assert keys_for(cache, newer(obj), before=obj) == {key(kind, name)}


def test_a_status_that_we_wrote_ourselves_wakes_nobody_at_all() -> None:
    cache = a_cluster()
    for kind, name in (("InferenceModel", "detector"), ("TritonServer", "l4")):
        obj = get(cache, kind, name)
        assert keys_for(cache, copy.deepcopy(obj), before=obj) == set()


def test_an_engines_status_wakes_the_models_that_wait_for_it() -> None:
    cache = a_cluster()
    engine = get(cache, "Engine", ENGINE.name)
    found = keys_for(cache, engine, before=copy.deepcopy(engine))
    assert {key("Engine", ENGINE.name), key("InferenceModel", "detector")} <= found
    assert key("InferenceModel", "classifier") not in found


def test_a_prepared_engines_status_wakes_the_engines_compiled_from_it() -> None:
    cache = a_cluster()
    compiled = copy.deepcopy(get(cache, "Engine", ENGINE.name))
    compiled["metadata"] |= {"name": "tensorrt-1", "uid": "tensorrt-1"}
    compiled["spec"] = {"repository": "default", "from": ENGINE.name}
    cache.put(compiled)
    engine = get(cache, "Engine", ENGINE.name)
    assert key("Engine", "tensorrt-1") in keys_for(cache, engine, before=copy.deepcopy(engine))
    assert key("Engine", ENGINE.name) not in keys_for(cache, compiled, before=copy.deepcopy(compiled))


def test_a_build_that_gets_further_wakes_nobody_else_until_its_end() -> None:
    cache = a_cluster()
    engine = get(cache, "Engine", ENGINE.name)
    further = {**engine, "status": {"progress": 42}}
    assert keys_for(cache, further, before=engine) == {key("Engine", ENGINE.name)}
    assert key("InferenceModel", "detector") in keys_for(cache, engine, before=further)


def test_a_change_of_spec_and_a_deletion_wake_everybody_concerned() -> None:
    cache = a_cluster()
    before = get(cache, "InferenceModel", "classifier")
    changed = newer(before)
    changed["metadata"]["generation"] = 2
    leaving = newer(before)
    leaving["metadata"]["deletionTimestamp"] = "2026-07-01T12:00:00Z"
    another = newer(before)
    another["metadata"]["uid"] = "another"
    for after in (changed, leaving, another):
        assert {key("TritonServer", "l4"), *MODELS} <= keys_for(cache, after, before=before)


def test_a_server_concerns_its_models_and_its_repository() -> None:
    cache = a_cluster()
    found = keys_for(cache, get(cache, "TritonServer", "a10"))
    expected = {
        key("TritonServer", "a10"),
        key("InferenceModel", "detector"),
        key("ModelRepository", "models"),
    }
    assert found == expected
    assert keys_on_server(cache, NAMESPACE, "l4") == {key("TritonServer", "l4"), *MODELS}


def test_a_repository_concerns_all_that_stands_on_it() -> None:
    cache = a_cluster()
    expected = {key("ModelRepository", "models"), *SERVERS, *MODELS}
    assert keys_for(cache, get(cache, "ModelRepository", "models")) == expected  # the engine is of another
    on_default = keys_on_repository(cache, NAMESPACE, "default")
    assert on_default == {key("ModelRepository", "default"), key("Engine", ENGINE.name)}


def test_a_change_of_trees_concerns_their_servers_and_the_models_on_them() -> None:
    cache = a_cluster()
    on_l4 = keys_on_server(cache, NAMESPACE, "l4")
    assert keys_on_volume(cache, NAMESPACE, "models", frozenset({"l4"})) == on_l4
    assert keys_on_volume(cache, NAMESPACE, "models", None) == keys_on_repository(cache, NAMESPACE, "models")


def test_a_model_without_servers_is_on_the_default_one() -> None:
    cache = a_cluster()
    cache.put(stored(a_model("plain").with_version(1, "pvc://s/1.onnx")))
    assert key("InferenceModel", "plain") in keys_on_server(cache, NAMESPACE, "default")


def test_another_namespace_is_not_concerned() -> None:
    cache = a_cluster()
    elsewhere = stored(DETECTOR)
    elsewhere["metadata"] |= {"namespace": "elsewhere", "uid": "x"}
    cache.put(elsewhere)
    assert all(found.namespace == NAMESPACE for found in keys_on_server(cache, NAMESPACE, "l4"))


def test_a_child_concerns_whom_its_labels_name() -> None:
    cache = a_cluster()
    for labels, owner in (
        (names.labels("triton", server="a10"), key("TritonServer", "a10")),
        (names.labels("keeper", repository="models"), key("ModelRepository", "models")),
        (names.labels("prepare", engine=ENGINE.name), key("Engine", ENGINE.name)),
    ):
        for kind in ("Deployment", "Pod", "Job", "Service"):
            child = {"kind": kind, "metadata": {"name": "x", "namespace": NAMESPACE, "labels": labels}}
            assert keys_for(cache, child) == {owner}


def test_a_look_up_of_a_digest_concerns_the_model_that_owns_it() -> None:
    cache = a_cluster()
    job = a_job(1)
    job["metadata"]["labels"] |= {names.RESOLVE: "resolve-1"}
    job["metadata"]["ownerReferences"] = [{"kind": "InferenceModel", "name": "detector", "uid": "u"}]
    assert keys_for(cache, job) == {key("InferenceModel", "detector")}
    cache.put(job)
    pod = a_pod()
    pod["metadata"]["labels"] = {names.RESOLVE: "resolve-1"}
    assert keys_for(cache, pod) == {key("InferenceModel", "detector")}


def test_what_is_not_ours_concerns_nobody() -> None:
    assert keys_for(a_cluster(), {"kind": "Pod", "metadata": {"name": "x", "namespace": NAMESPACE}}) == set()


def test_a_node_concerns_every_server_that_has_gpus_when_something_of_it_changes() -> None:
    cache = a_cluster()
    cache.put(stored(a_server("gpus").with_spec(gpu={})))
    elsewhere = stored(a_server("gpus").with_spec(gpu={}))
    elsewhere["metadata"] |= {"namespace": "elsewhere", "uid": "x"}
    cache.put(elsewhere)
    concerned = {key("TritonServer", "gpus"), Key("TritonServer", "elsewhere", "gpus")}
    node = nodes.kept(a_node("gpu-1", A10).build())
    beat = nodes.kept(a_node("gpu-1", A10, version=2).build())
    bare = nodes.kept(a_node("gpu-1", A10, version=3).without_labels().build())
    assert keys_for(cache, node) == concerned
    assert keys_for(cache, beat, before=node) == set()
    assert keys_for(cache, bare, before=beat) == concerned
