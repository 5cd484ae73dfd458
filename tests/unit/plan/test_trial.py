from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from triton_operator.plan import trial

names = st.sets(st.sampled_from(["a.candidate", "b.candidate", "c.candidate", "d.candidate"]))
pods = st.lists(st.sampled_from(["u1", "u2", "u3"]), unique=True)
memories = st.dictionaries(
    st.sampled_from(["a.candidate", "b.candidate", "old.candidate"]), st.sampled_from(["u1", "u2", "u9"])
)


def unique(before: dict[str, str]) -> dict[str, str]:
    """Return a memory as it can be: no two candidates on one pod."""
    return {name: uid for uid, name in {uid: name for name, uid in before.items()}.items()}


@given(names, pods, memories)
def test_no_pod_tries_two_candidates(wanted: set[str], able: list[str], before: dict[str, str]) -> None:
    chosen = trial.hosts(wanted, able, before=unique(before), standing={*able})
    assert len(set(chosen.values())) == len(chosen)
    assert chosen.keys() <= wanted
    assert set(chosen.values()) <= set(able)


@given(names, pods, memories)
def test_nobody_waits_while_a_pod_is_free(wanted: set[str], able: list[str], before: dict[str, str]) -> None:
    chosen = trial.hosts(wanted, able, before=unique(before), standing={*able})
    assert len(chosen) == min(len(wanted), len(able))


@given(names, pods, st.sets(st.sampled_from(["u1", "u2", "u3"])))
def test_a_candidate_stays_where_it_is_even_while_its_pod_is_down(
    wanted: set[str], able: list[str], down: set[str]
) -> None:
    first = trial.hosts(wanted, able, before={}, standing=set())
    left = [pod for pod in able if pod not in down]
    assert (
        trial.hosts(wanted | {"0.candidate"}, left, before=first, standing={*able}).items() >= first.items()
    )


def test_a_candidate_moves_when_its_pod_is_gone() -> None:
    moved = trial.hosts(["a.candidate"], ["u2"], before={"a.candidate": "u1"}, standing={"u2"})
    assert moved == {"a.candidate": "u2"}


def test_names_of_candidates_are_known_by_their_end() -> None:
    assert trial.is_trial(trial.name_of("text"))
    assert not trial.is_trial("text")
