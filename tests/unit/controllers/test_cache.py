from __future__ import annotations

from typing import Any

from hypothesis import given
from hypothesis import strategies as st
from tests.builders import a_model

from triton_operator.controllers import cache as module
from triton_operator.controllers.cache import Cache
from triton_operator.resources.inference_model import InferenceModel

Object = dict[str, Any]


def an_object(
    name: str = "a", *, uid: str = "1", version: int = 1, namespace: str = "vision", **labels: str
) -> Object:
    metadata: Object = {"name": name, "namespace": namespace, "uid": uid, "resourceVersion": str(version)}
    return {"kind": "Service", "metadata": metadata | ({"labels": labels} if labels else {})}


def version_of(cache: Cache, name: str = "a") -> int | None:
    found = cache.get("Service", "vision", name)
    return int(found["metadata"]["resourceVersion"]) if found else None


@given(st.permutations(range(1, 6)))
def test_the_newest_version_wins_in_whatever_order_they_come(order: list[int]) -> None:
    cache = Cache()
    for version in order:
        cache.put(an_object(version=version))
    assert version_of(cache) == 5


def test_what_is_older_than_known_is_no_news() -> None:
    cache = Cache()
    assert cache.put(an_object(version=2))
    assert not cache.put(an_object(version=1))


def test_the_watch_that_brings_what_we_wrote_ourselves_is_news() -> None:
    # Our own write put it in without telling anybody; whoever depends on it is told by the watch.
    cache = Cache()
    cache.put(an_object(version=7))
    assert cache.put(an_object(version=7))


def test_a_late_answer_does_not_bring_a_deleted_object_back() -> None:
    cache = Cache()
    cache.put(an_object(version=1))
    assert cache.remove(an_object(version=3))
    assert not cache.put(an_object(version=2))
    assert cache.get("Service", "vision", "a") is None


def test_a_late_deletion_leaves_the_next_object_of_that_name_alone() -> None:
    cache = Cache()
    cache.put(an_object(uid="1", version=1))
    cache.put(an_object(uid="2", version=5))
    assert not cache.remove(an_object(uid="1", version=4))
    assert version_of(cache) == 5


def test_a_late_event_of_the_former_object_does_not_hide_the_new_one() -> None:
    cache = Cache()
    cache.put(an_object(uid="2", version=5))
    assert not cache.put(an_object(uid="1", version=4))
    assert version_of(cache) == 5


def test_an_object_that_got_its_label_back_is_known_again() -> None:
    # A watch by labels says "deleted" of an object that merely lost its label.
    cache = Cache()
    cache.put(an_object(version=1))
    cache.remove(an_object(version=2))
    assert cache.put(an_object(version=3))
    assert version_of(cache) == 3


def test_a_deletion_that_only_names_the_object_counts() -> None:
    cache = Cache()
    cache.put(an_object(version=4))
    nameless = an_object()
    del nameless["metadata"]["resourceVersion"]
    assert cache.remove(nameless)
    assert not cache.put(an_object(version=4))
    assert not cache.remove(nameless)


def test_objects_are_found_by_kind_place_and_labels() -> None:
    cache = Cache()
    here, there = an_object("b", uid="1", app="x"), an_object("a", uid="2", namespace="other", app="x")
    cache.put(here)
    cache.put(there)
    cache.put(an_object("a", uid="3"))
    assert [o["metadata"]["name"] for o in cache.all("Service", "vision")] == ["a", "b"]
    assert len(cache.all("Service")) == 3
    assert cache.labelled("Service", "vision", {"app": "x"}) == [here]
    assert cache.labelled("Service", "vision", {"app": "y"}) == []
    assert cache.uids("Service") == {"1", "2", "3"}
    assert cache.all("Pod") == []


def test_a_list_is_the_truth_about_what_was_known_before_it() -> None:
    cache = Cache()
    cache.put(an_object("gone", uid="1", version=1))
    cache.put(an_object("stays", uid="2", version=1))
    before = cache.uids("Service")
    cache.put(an_object("new", uid="3", version=9))  # came while the list was under way
    changed = cache.replace("Service", [an_object("stays", uid="2", version=2)], known_before=before)
    assert {o["metadata"]["name"] for o in changed} == {"gone", "stays"}
    assert [o["metadata"]["name"] for o in cache.all("Service")] == ["new", "stays"]


def test_a_list_that_was_asked_for_before_a_deletion_brings_nothing_back() -> None:
    cache = Cache()
    cache.put(an_object(version=1))
    before = cache.uids("Service")
    cache.remove(an_object(version=2))
    cache.replace("Service", [an_object(version=1)], known_before=before)
    assert cache.all("Service") == []


def test_graves_are_bounded() -> None:
    cache = Cache()
    for number in range(module._GRAVES + 5):
        cache.remove(an_object(uid=str(number)))
    assert len(cache._buried) == module._GRAVES


@given(st.lists(st.sampled_from(["write", "delete"]), min_size=1, max_size=8), st.data())
def test_the_cache_ends_as_the_server_is_when_the_watch_has_caught_up(
    history: list[str], data: st.DataObject
) -> None:
    """The watch tells everything in order; answers to our own writes come at any time after."""
    cache, uid, alive = Cache(), 1, False
    told: list[tuple[str, Object]] = []
    for version, action in enumerate(history, start=1):
        if action == "write":
            told.append(("put", an_object(uid=str(uid), version=version)))
            alive = True
        elif alive:
            told.append(("remove", an_object(uid=str(uid), version=version)))
            uid, alive = uid + 1, False
    for position, (verb, obj) in enumerate(told):
        getattr(cache, verb)(obj)
        late = data.draw(st.integers(0, position))
        if told[late][0] == "put":
            cache.put(told[late][1])
    last = told[-1] if told else None
    if last is not None and last[0] == "put":
        assert cache.all("Service") == [last[1]]
    else:
        assert cache.all("Service") == []


def test_an_object_is_parsed_once_for_each_of_its_states() -> None:
    cache = Cache()
    body = a_model("text").with_version(1, "pvc://models/1.onnx").build()
    body["metadata"] |= {"namespace": "vision", "uid": "1", "resourceVersion": "1"}
    cache.put(body)
    first = cache.read(InferenceModel, "vision", "text")
    assert first is not None
    assert cache.read_all(InferenceModel, "vision") == [first]
    assert cache.read(InferenceModel, "vision", "text") is first
    cache.put({**body, "metadata": {**body["metadata"], "resourceVersion": "2", "generation": 2}})
    second = cache.read(InferenceModel, "vision", "text")
    assert second is not None
    assert second.metadata.generation == 2
    cache.remove(body)
    assert cache.read(InferenceModel, "vision", "text") is None
