from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from triton_operator.plan.exclusion import Served, left_out

MODELS = ("a", "b", "c")
served = st.builds(
    lambda models, failed: Served(frozenset(models), frozenset(failed) - frozenset(models)),
    st.sets(st.sampled_from(MODELS)),
    st.sets(st.sampled_from(MODELS)),
)
fleets = st.dictionaries(st.sampled_from([f"pod-{n}" for n in range(6)]), served)


def a_pod(models: str, failed: str = "") -> Served:
    return Served(frozenset(models), frozenset(failed))


def test_a_pod_that_lacks_a_model_which_others_serve_gets_no_requests() -> None:
    pods = {"pod-1": a_pod("ab"), "pod-2": a_pod("b", failed="a"), "pod-3": a_pod("ab")}
    assert left_out(pods) == {"pod-2"}


def test_the_only_pod_serves_what_it_can() -> None:
    assert left_out({"pod-1": a_pod("b", failed="a")}) == frozenset()


def test_a_model_that_no_pod_can_load_takes_none_out() -> None:
    assert left_out({"pod-1": a_pod("b", failed="a"), "pod-2": a_pod("b", failed="a")}) == frozenset()


def test_two_pods_that_lack_different_models_both_go_on() -> None:
    assert left_out({"pod-1": a_pod("a", failed="b"), "pod-2": a_pod("b", failed="a")}) == frozenset()


def test_a_model_that_is_on_its_way_takes_no_pod_out() -> None:
    assert left_out({"pod-1": a_pod("ab"), "pod-2": a_pod("b")}) == frozenset()


def test_most_pods_stay_in() -> None:
    pods = {"pod-1": a_pod("ab")} | {f"pod-{n}": a_pod("b", failed="a") for n in range(2, 5)}
    assert len(left_out(pods)) == 2


@given(fleets)
def test_no_model_loses_its_last_pod_and_half_of_the_pods_stay(pods: dict[str, Served]) -> None:
    out = left_out(pods)
    inside = [pod for name, pod in pods.items() if name not in out]
    assert len(out) <= len(inside)
    everywhere = frozenset().union(*(pod.models for pod in pods.values()))
    assert frozenset().union(*(pod.models for pod in inside)) == everywhere
    assert all(pods[name].failed for name in out)
