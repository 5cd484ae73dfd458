from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st
from tests.builders import a_model
from tests.observed import a_snapshot, a_tree, an_entry, engine_of, model, sha

from engine_builder.contract import Snapshot
from triton_operator.plan import sweep

NUMBERS = (1, 2, 3)
MODEL = a_model()
for _number in NUMBERS:
    MODEL = MODEL.with_version(_number, f"pvc://s/{_number}.onnx", sha256=sha(str(_number)))
ENGINES = {number: engine_of(model(MODEL), number) for number in NUMBERS}
NAMES = [engine.name for engine in ENGINES.values()]

engines = st.sets(st.sampled_from(NAMES))
staging = st.sets(st.sampled_from(["pod-a", "pod-b"]))
trees = st.dictionaries(st.sampled_from(["a10", "l4"]), st.sets(st.sampled_from(NUMBERS), max_size=2))


def found_on(names: set[str], servers: dict[str, set[int]], staged: set[str]) -> Snapshot:
    entries = [an_entry(engine) for engine in ENGINES.values() if engine.name in names]
    states = tuple(
        a_tree({"model": {n: ENGINES[n].name for n in versions}}, server=server)
        for server, versions in servers.items()
    )
    return a_snapshot(*entries, trees=states, staging=tuple(staged))


@given(engines, trees, staging, engines, st.sets(st.sampled_from(["a10", "l4"])), staging)
def test_a_sweep_is_asked_for_only_when_something_may_go(  # noqa: PLR0917 - drawn
    names: set[str],
    servers: dict[str, set[int]],
    staged: set[str],
    kept: set[str],
    kept_servers: set[str],
    kept_staging: set[str],
) -> None:
    found = found_on(names, servers, staged)
    request = sweep.keep(engines=kept, servers=[(s, "24.10") for s in kept_servers], staging=kept_staging)
    named = {ENGINES[n].name for versions in servers.values() for n in versions}
    may_go = (names - kept - named) or (set(servers) - kept_servers) or (staged - kept_staging)
    assert sweep.is_needed(request, found) == bool(may_go)


@given(trees)
def test_an_engine_that_only_a_tree_names_is_no_reason_to_sweep(servers: dict[str, set[int]]) -> None:
    named = {ENGINES[n].name for versions in servers.values() for n in versions}
    request = sweep.keep(engines=[], servers=[(s, "24.10") for s in servers], staging=[])
    assert not sweep.is_needed(request, found_on(named, servers, set()))


def test_a_request_is_the_same_whatever_the_order() -> None:
    request = sweep.keep(engines=["b", "a", "b"], servers=[("s", "1"), ("r", "2"), ("s", "1")], staging=["u"])
    assert (request.engines, request.trees, request.staging) == (("a", "b"), ("r/2", "s/1"), ("u",))
