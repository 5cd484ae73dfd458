from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st
from tests.triton_machine import TritonMachine, desired

from triton_operator.clients.triton import TritonRefused
from triton_operator.plan.converge import (
    DesiredModel,
    IndexRow,
    Load,
    Step,
    Unload,
    Wait,
    ready_versions,
    steps,
)

MODELS = ("detector", "classifier", "detector.candidate")
STATES = ("READY", "LOADING", "UNLOADING", "UNAVAILABLE", "")

models = st.sampled_from(MODELS)
version_sets = st.sets(st.integers(1, 3), min_size=1)
fingerprints = st.sampled_from(["f1", "f2"])
wishes = st.dictionaries(
    models, st.builds(lambda f, v: desired(f, *v), fingerprints, version_sets), max_size=3
)
starts = st.dictionaries(st.tuples(models, st.integers(1, 3)), st.sampled_from(STATES), max_size=6)


def a_machine(start: dict[tuple[str, int], str], running: dict[str, str]) -> TritonMachine:
    machine = TritonMachine()
    machine.states = dict(start)
    machine.fingerprints = {m: f for m, f in running.items() if any(key[0] == m for key in start)}
    return machine


def rows(machine: TritonMachine) -> list[IndexRow]:
    return [IndexRow(model, version, state, "") for (model, version), state in machine.states.items()]


def next_steps(machine: TritonMachine, wanted: dict[str, DesiredModel]) -> list[Step]:
    running = {model: f for model, f in machine.fingerprints.items() if machine.serving(model)}
    return steps(wanted, rows(machine), running)


def take(machine: TritonMachine, step: Step) -> None:
    if isinstance(step, Unload):
        machine.begin_unload(step.model)
    elif isinstance(step, Load):
        machine._load(step.model, step.desired.config)


@given(starts, st.dictionaries(models, fingerprints), wishes)
def test_a_pod_reaches_what_the_tree_says_from_anywhere_and_rests_there(
    start: dict[tuple[str, int], str], running: dict[str, str], wanted: dict[str, DesiredModel]
) -> None:
    machine = a_machine(start, running)
    for _ in range(12):
        todo = next_steps(machine, wanted)
        if not todo:
            break
        for step in todo:
            take(machine, step)
        machine.tick()
    machine.tick()
    assert next_steps(machine, wanted) == []
    assert {m: machine.serving(m) for m in MODELS if machine.serving(m)} == {
        model: state.versions for model, state in wanted.items()
    }
    assert all(machine.fingerprints[model] == state.fingerprint for model, state in wanted.items())


@given(starts, st.dictionaries(models, fingerprints), wishes)
def test_nothing_is_asked_twice_of_a_model_in_one_round(
    start: dict[tuple[str, int], str], running: dict[str, str], wanted: dict[str, DesiredModel]
) -> None:
    todo = next_steps(a_machine(start, running), wanted)
    named = [step.model for step in todo]
    assert len(set(named)) == len(named)
    kinds = [isinstance(step, Unload) for step in todo if not isinstance(step, Wait)]
    assert kinds == sorted(kinds, reverse=True), "what an unload frees may be needed by a load"
    assert all(step.model in wanted or not isinstance(step, Load) for step in todo)
    assert all(step.model not in wanted or not isinstance(step, Unload) for step in todo)


def test_a_model_on_its_way_is_waited_for() -> None:
    machine = a_machine({("detector", 1): "READY", ("detector", 2): "LOADING"}, {"detector": "f1"})
    assert next_steps(machine, {"detector": desired("f1", 1, 2)}) == [Wait("detector")]


def test_a_version_that_another_hand_unloaded_is_loaded_again() -> None:
    machine = a_machine({("detector", 1): "READY", ("detector", 2): "UNAVAILABLE"}, {"detector": "f1"})
    wanted = desired("f1", 1, 2)
    assert next_steps(machine, {"detector": wanted}) == [Load("detector", wanted)]


def test_what_was_never_loaded_is_not_unloaded() -> None:
    machine = a_machine({("stray", 0): "", ("gone", 1): "UNAVAILABLE"}, {})
    assert next_steps(machine, {}) == []


def test_a_model_on_its_way_down_is_waited_for() -> None:
    machine = a_machine({("going", 1): "UNLOADING"}, {})
    assert next_steps(machine, {}) == [Wait("going")]


def test_the_set_is_never_narrowed_while_a_version_refuses_to_load() -> None:
    machine = a_machine({("detector", 1): "READY"}, {"detector": "f1"})
    machine.broken = {("detector", 2)}
    wanted = {"detector": desired("f1", 1, 2)}
    for _ in range(3):
        for step in next_steps(machine, wanted):
            try:
                take(machine, step)
            except TritonRefused:
                continue
        machine.tick()
        assert machine.serving("detector") == {1}


def test_only_versions_that_answer_are_ready() -> None:
    machine = a_machine({("detector", n + 1): state for n, state in enumerate(STATES)}, {})
    assert ready_versions(rows(machine), "detector") == {1}
    assert ready_versions(rows(machine), "classifier") == frozenset()
