from __future__ import annotations

import copy
from collections.abc import Iterator
from typing import Any

from hypothesis import assume, given
from hypothesis import strategies as st

from triton_operator.plan.drift import HASH_ANNOTATION, holds, stamped

keys = st.sampled_from(["name", "image", "ports", "env", "limits", "replicas"])
scalars = st.sampled_from(["a", "b", "8000", 8001, 1, True, "100m"])
values = st.recursive(
    scalars,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(keys, inner, max_size=3),
    max_leaves=8,
)
manifests = st.dictionaries(keys, values, min_size=1, max_size=4)
defaults = st.dictionaries(st.sampled_from(["protocol", "uid", "dnsPolicy"]), scalars, min_size=1, max_size=3)


def defaulted(value: Any, more: dict[str, Any]) -> Any:
    """Return what the API server makes of a value: every map has more, empty ones are dropped."""
    if isinstance(value, dict):
        kept = {k: defaulted(v, more) for k, v in value.items() if v not in ({}, [], "")}
        return kept | more
    if isinstance(value, list):
        return [defaulted(item, more) for item in value]
    return value


def places(value: Any) -> Iterator[tuple[Any, Any]]:
    """Yield (container, key) of every scalar."""
    items = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
    for key, item in items:
        if isinstance(item, dict | list):
            yield from places(item)
        else:
            yield value, key


@given(manifests, defaults)
def test_what_the_server_fills_in_is_no_drift(desired: dict[str, Any], more: dict[str, Any]) -> None:
    assert holds(desired, defaulted(desired, more))
    assert holds(desired, desired)


@given(manifests, defaults, st.data())
def test_any_value_of_ours_that_differs_is_drift(
    desired: dict[str, Any], more: dict[str, Any], data: st.DataObject
) -> None:
    live = defaulted(desired, more)
    mine = [(c, k) for c, k in places(live) if k not in more]
    assume(mine)
    container, key = data.draw(st.sampled_from(mine))
    container[key] = "something else"
    assert not holds(desired, live)


@given(manifests, st.data())
def test_a_field_of_ours_that_is_gone_is_drift(desired: dict[str, Any], data: st.DataObject) -> None:
    live = copy.deepcopy(desired)
    mine = [(c, k) for c, k in places(live) if isinstance(c, dict)]
    assume(mine)
    container, key = data.draw(st.sampled_from(mine))
    del container[key]
    assert not holds(desired, live)


def test_a_list_that_has_more_or_less_is_drift() -> None:
    assert not holds({"args": ["--a"]}, {"args": ["--a", "--b"]})
    assert not holds({"args": ["--a", "--b"]}, {"args": ["--a"]})
    assert not holds({"args": ["--a"]}, {})


def test_the_zero_values_that_the_server_leaves_out_are_no_drift() -> None:
    assert holds({"value": "", "readOnly": False, "count": 0, "env": [], "limits": {}}, {})
    assert not holds({"readOnly": True}, {})
    assert not holds({"readOnly": False}, {"readOnly": True})


def test_numbers_and_their_text_are_the_same() -> None:
    assert holds({"cpu": "2", "port": 8000}, {"cpu": 2, "port": "8000"})


@given(manifests, manifests)
def test_a_stamp_tells_manifests_apart(first: dict[str, Any], second: dict[str, Any]) -> None:
    def stamp(spec: dict[str, Any]) -> str:
        body = stamped({"metadata": {"name": "x", "annotations": {"other": "kept"}}, "spec": spec})
        assert body["metadata"]["annotations"]["other"] == "kept"
        assert body["spec"] == spec
        return str(body["metadata"]["annotations"][HASH_ANNOTATION])

    assert stamp(first) == stamp(copy.deepcopy(first))
    assert (stamp(first) == stamp(second)) == (repr_of(first) == repr_of(second))


def repr_of(value: Any) -> Any:
    """Return a form in which 1 and True differ, and the order of keys doesn't matter."""
    if isinstance(value, dict):
        return {key: repr_of(item) for key, item in value.items()}
    if isinstance(value, list):
        return [repr_of(item) for item in value]
    return (type(value).__name__, value)


def test_key_more_in_a_selector_is_drift() -> None:
    desired = {"spec": {"selector": {"server": "a10"}, "ports": []}}
    assert holds(desired, {"spec": {"selector": {"server": "a10"}, "clusterIP": "10.96.0.7"}})
    assert not holds(desired, {"spec": {"selector": {"server": "a10", "app": "foreign"}}})
