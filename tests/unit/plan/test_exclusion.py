from __future__ import annotations

import dataclasses

from hypothesis import given
from hypothesis import strategies as st

from triton_operator.plan.exclusion import Served, left_out

MODELS = ("a", "b", "c")
served = st.builds(
    lambda found, missed: Served(frozenset(found), frozenset(missed) - frozenset(found)),
    st.sets(st.sampled_from(MODELS)),
    st.sets(st.sampled_from(MODELS)),
)
fleets = st.dictionaries(st.sampled_from([f"pod-{n}" for n in range(6)]), served)


def a_pod(found: str, missed: str = "") -> Served:
    return Served(frozenset(found), frozenset(missed))


def test_a_pod_that_lacks_a_model_which_others_serve_gets_no_requests() -> None:
    pods = {"pod-1": a_pod("ab"), "pod-2": a_pod("b", missed="a"), "pod-3": a_pod("ab")}
    assert left_out(pods) == {"pod-2"}


def test_the_only_pod_serves_what_it_can() -> None:
    assert left_out({"pod-1": a_pod("b", missed="a")}) == frozenset()


def test_a_model_that_no_pod_can_load_takes_none_out() -> None:
    assert left_out({"pod-1": a_pod("b", missed="a"), "pod-2": a_pod("b", missed="a")}) == frozenset()


def test_two_pods_that_lack_different_models_both_go_on() -> None:
    assert left_out({"pod-1": a_pod("a", missed="b"), "pod-2": a_pod("b", missed="a")}) == frozenset()


def test_a_model_that_is_on_its_way_takes_no_pod_out() -> None:
    assert left_out({"pod-1": a_pod("ab"), "pod-2": a_pod("b")}) == frozenset()


def test_most_pods_stay_in() -> None:
    pods = {"pod-1": a_pod("ab")} | {f"pod-{n}": a_pod("b", missed="a") for n in range(2, 5)}
    assert len(left_out(pods)) == 2


def test_a_pod_is_judged_before_it_is_ready_and_counts_for_nobody_until_then() -> None:
    starting = dataclasses.replace(a_pod("b", missed="a"), ready=False)
    assert left_out({"pod-1": a_pod("ab"), "pod-2": starting}) == {"pod-2"}
    helper = dataclasses.replace(a_pod("ab"), ready=False)
    assert left_out({"pod-1": a_pod("b", missed="a"), "pod-2": helper}) == frozenset()


@given(fleets)
def test_no_model_loses_its_last_pod_and_half_of_the_pods_stay(pods: dict[str, Served]) -> None:
    out = left_out(pods)
    inside = [pod for name, pod in pods.items() if name not in out]
    assert len(out) <= len(inside)
    everywhere = frozenset().union(*(pod.found for pod in pods.values()))
    assert frozenset().union(*(pod.found for pod in inside)) == everywhere
    assert all(pods[name].missed for name in out)
