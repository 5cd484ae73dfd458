from __future__ import annotations

import dataclasses
from typing import Any

from hypothesis import given
from hypothesis import strategies as st
from tests.builders import ModelBuilder, a_model
from tests.observed import NOW, REPOSITORY_UID, a_signature, a_snapshot, an_entry, engine_of, model, sha

from triton_operator.plan import model_status, verdicts, versions
from triton_operator.plan.loads import Fault
from triton_operator.plan.model_status import ModelVerdict, Surroundings
from triton_operator.plan.outcome import Outcome, Ready, Stalled, Waiting
from triton_operator.plan.verdicts import Question
from triton_operator.plan.versions import Build
from triton_operator.plan.views import PodView, ServerView, TrialView
from triton_operator.resources.inference_model import (
    CheckStatus,
    InferenceModel,
    VersionState,
    VersionStatus,
)

Object = dict[str, Any]
BUILT = Ready("Built", "")


def a_builder(*numbers: int, content: str = "") -> ModelBuilder:
    builder = a_model()
    for number in numbers:
        builder = builder.with_version(number, f"pvc://s/{number}.onnx", sha256=sha(f"{content}{number}"))
    return builder


def a_view(
    found: InferenceModel,
    *,
    outcomes: dict[int, Outcome] | None = None,
    in_tree: set[int] | None = None,
    pods: tuple[PodView, ...] = (),
    wanted: int | None = None,
    name: str = "default",
    repository_uid: str = REPOSITORY_UID,
) -> ServerView:
    """Return what a server does with a model: everything built, and in the tree, unless told otherwise."""
    engines = {
        v.number: engine_of(found, v.number, repository_uid=repository_uid) for v in found.spec.versions
    }
    told = outcomes or {}
    builds = tuple(
        Build(
            number=number,
            engine=engine,
            content=None,
            outcome=told.get(number, BUILT),
            signature=a_signature(),
        )
        for number, engine in engines.items()
    )
    shown = in_tree if in_tree is not None else {b.number for b in builds if b.is_ready}
    tree = {n: str(engines[n].name) if n in engines else f"onnxruntime-of-{n}" for n in shown}
    count = len(pods) if wanted is None else wanted
    return ServerView(name=name, builds=builds, in_tree=tree, wanted_pods=count, pods=pods)


def a_pod(
    *ready: int, name: str = "pod-1", current: bool = True, trouble: str = "", given_up: Fault | None = None
) -> PodView:
    return PodView(name=name, ready=frozenset(ready), current=current, trouble=trouble, given_up=given_up)


def tried(view: ServerView, number: int, **more: Any) -> ServerView:
    """Return the view of a server that tries a version which is not in its tree yet."""
    engine = next(str(b.engine.name) for b in view.builds if b.number == number and b.engine)
    in_tree = {n: e for n, e in view.in_tree.items() if n != number}
    trial = TrialView(number=number, engine=engine, **more)
    return dataclasses.replace(view, in_tree=in_tree, trial=trial)


def told(found: InferenceModel, *views: ServerView, kept: set[str] | None = None) -> ModelVerdict:
    named = {str(b.engine.name) for view in views for b in view.builds if b.engine}
    surroundings = Surroundings(kept_engines=named if kept is None else kept, now=NOW)
    return model_status.verdict(found, views, surroundings)


def with_entries(found: InferenceModel, entries: tuple[VersionStatus, ...]) -> InferenceModel:
    return found.model_copy(update={"status": found.status.model_copy(update={"versions": entries})})


def checked(found: InferenceModel, view: ServerView, *, reason: str = "Succeeded") -> InferenceModel:
    """Return the model with the check of every version recorded."""
    for build in view.builds:
        assert build.engine is not None
        check = CheckStatus(
            engine=build.engine.name,
            minimum_cosine=found.spec.check.minimum_cosine,
            reason=reason,
            message="cosine 0.2",
        )
        found = with_entries(found, verdicts.with_check(found, build.number, check))
    return found


def test_served_means_loaded_current_and_checked_on_every_pod() -> None:
    found = model(a_builder(1))
    view = a_view(found, pods=(a_pod(1), a_pod(1, name="pod-2")))
    assert told(found, view).outcome.reason == "Checking"
    verdict = told(checked(found, view), view)
    assert verdict.outcome == Ready("Served", "version 1 served by 2/2 pods of default")
    assert verdict.serving == (1,)
    assert verdict.versions[0].pods == "2/2"
    assert verdict.versions[0].state is VersionState.PROMOTED
    stale = a_view(found, pods=(a_pod(1), a_pod(1, name="pod-2", current=False)))
    assert told(checked(found, stale), stale).outcome.reason == "Reloading"


def test_progress_is_told_pod_by_pod() -> None:
    found = model(a_builder(1, 2))
    view = a_view(found, pods=(a_pod(1, 2), a_pod(1, name="pod-2")))
    verdict = told(checked(found, view), view)
    assert (verdict.outcome.reason, verdict.serving) == ("Loading", (1,))
    assert verdict.outcome.message.startswith("version 2: loaded on 1/2 pods")
    assert [entry.pods for entry in verdict.versions] == ["2/2", "1/2"]


def test_a_replica_that_is_lent_to_a_build_is_not_waited_for_unless_it_is_the_last() -> None:
    found = model(a_builder(1))
    lent = "1 of 2 replicas lent to the build of engine e"
    view = dataclasses.replace(a_view(found, pods=(a_pod(1),)), lent=lent)
    verdict = told(checked(found, view), view)
    assert verdict.outcome == Ready("Served", "version 1 served by 1/1 pods of default")
    assert lent in verdict.versions[0].message
    last = dataclasses.replace(a_view(found, wanted=1), lent=lent)
    outcome = told(checked(found, last), last).outcome
    assert outcome == Waiting("Loading", f"version 1: loaded on 0/1 pods of TritonServer default ({lent})")


def test_a_pod_that_refuses_is_named_with_its_reason() -> None:
    found = model(a_builder(1))
    view = a_view(found, pods=(a_pod(1), a_pod(name="pod-2", trouble="load failed: no memory")))
    outcome = told(found, view).outcome
    assert (type(outcome), outcome.reason) == (Waiting, "LoadFailed")
    assert "pod pod-2: load failed: no memory" in outcome.message


def test_a_build_that_failed_stalls_the_model_and_leaves_the_other_version_serving() -> None:
    found = model(a_builder(1, 2))
    view = a_view(found, outcomes={2: Stalled("InvalidModel", "not ONNX")}, pods=(a_pod(1),))
    verdict = told(checked(found, view), view)
    assert verdict.outcome == Stalled("InvalidModel", "version 2: not ONNX; version 1 served meanwhile")
    assert verdict.serving == (1,)
    assert [entry.state for entry in verdict.versions] == [VersionState.PROMOTED, VersionState.FAILED]


def test_something_that_waits_behind_a_stall_is_looked_at_again() -> None:
    found = model(a_builder(1, 2))
    view = a_view(found, outcomes={2: Stalled("InvalidModel", "not ONNX")}, pods=(a_pod(1),))
    outcome = told(found, view).outcome  # version 1 is still to be checked, and no watch tells
    assert isinstance(outcome, Stalled)
    assert outcome.after is not None
    elsewhere = a_view(found, name="other", pods=())
    refused = ServerView(name="default", refusal=Stalled("BackendNotAllowed", "…"))
    waiting = dataclasses.replace(elsewhere, wanted_pods=1)
    outcome = told(found, refused, waiting).outcome
    assert isinstance(outcome, Stalled)
    assert outcome.after is not None


def test_the_shortest_wait_of_all_versions_counts() -> None:
    found = model(a_builder(1, 2))
    view = a_view(
        found, outcomes={1: Waiting("Building", "", after=9), 2: Stalled("SourceNotFound", "", after=4)}
    )
    outcome = told(found, view).outcome
    assert isinstance(outcome, Stalled)
    assert outcome.after == 4


def test_a_server_that_is_missing_or_refuses_is_what_the_model_waits_for() -> None:
    found = model(a_builder(1))
    absent = ServerView(name="l4", refusal=Waiting("ServerNotFound", "TritonServer l4 does not exist"))
    view = a_view(found, pods=(a_pod(1),))
    verdict = told(checked(found, view), view, absent)
    assert verdict.outcome.reason == "ServerNotFound"
    assert verdict.serving == (1,)


def test_nothing_is_served_before_there_are_pods() -> None:
    found = model(a_builder(1))
    verdict = told(found, a_view(found, wanted=2))
    assert (verdict.outcome.reason, verdict.serving) == ("Loading", ())


def test_a_version_is_about_to_be_published_until_the_tree_has_it() -> None:
    found = model(a_builder(1))
    verdict = told(found, a_view(found, in_tree=set(), pods=(a_pod(),)))
    assert verdict.outcome.reason == "Publishing"
    assert verdict.versions[0].state is VersionState.BUILT


def test_states_follow_the_way_of_a_version() -> None:
    found = model(a_builder(1))
    building = a_view(found, outcomes={1: Waiting("Building", "")})
    assert told(found, building).versions[0].state is VersionState.BUILDING
    unresolved = model(a_model().with_version(1, "pvc://s/1.onnx"))
    builds = (Build(number=1, engine=None, content=None, outcome=Waiting("Resolving", "")),)
    entry = told(unresolved, ServerView(name="default", builds=builds)).versions[0]
    assert (entry.state, entry.content_digest, entry.engines) == (VersionState.RESOLVING, None, ())


def test_wrong_answers_stall_the_version_and_are_not_asked_again() -> None:
    found = model(a_builder(1))
    view = a_view(found, pods=(a_pod(1),))
    wrong = checked(found, view, reason="WrongAnswers")
    assert told(wrong, view).outcome == Stalled("WrongAnswers", "version 1: cosine 0.2")
    assert verdicts.unchecked(wrong, view) == []


def test_what_answers_is_checked_once_on_one_pod() -> None:
    found = model(a_builder(1, 2))
    view = a_view(found, pods=(a_pod(1, name="b"), a_pod(1, name="a")))
    engine = engine_of(found, 1).name
    assert verdicts.unchecked(found, view) == [Question(1, engine, "a", "model")]
    assert verdicts.unchecked(checked(found, view), view) == []
    stricter = model(a_builder(1, 2).with_spec(check={"minimumCosine": "0.999"}))
    again = with_entries(stricter, checked(found, view).status.versions)
    assert verdicts.unchecked(again, view) == [Question(1, engine, "a", "model")]


def test_a_version_that_is_no_longer_listed_is_not_checked() -> None:
    found = model(a_builder(2))
    assert verdicts.unchecked(found, a_view(found, in_tree={1}, pods=(a_pod(1),))) == []


def test_each_engine_of_a_version_is_checked_and_one_that_fails_speaks_for_all() -> None:
    found = model(a_builder(1).with_servers("a", "b"))
    first = a_view(found, name="a", pods=(a_pod(1),))
    second = a_view(found, name="b", pods=(a_pod(1, name="pod-2"),), repository_uid="another")
    found = with_entries(found, told(found, first, second).versions)
    found = with_entries(checked(found, first), told(checked(found, first), first, second).versions)
    assert verdicts.unchecked(found, first) == []
    assert [question.engine for question in verdicts.unchecked(found, second)] == [second.in_tree[1]]
    found = checked(found, second)
    assert verdicts.unchecked(found, second) == []
    assert told(found, first, second).outcome.reason == "Served"
    wrong = checked(found, first, reason="WrongAnswers")
    assert told(wrong, first, second).outcome.reason == "WrongAnswers"


def test_a_check_result_finds_its_place_even_when_the_status_was_lost() -> None:
    found = model(a_builder(1, 2))
    check = CheckStatus(engine="e", minimum_cosine="0.99", reason="Succeeded")
    entries = verdicts.with_check(found, 2, check)
    assert [(entry.number, entry.checks) for entry in entries] == [(2, (check,))]


# -- numbers that were removed ---------------------------------------------------------------


def served(found: InferenceModel) -> InferenceModel:
    """Return the model with the status that it has once everything is served."""
    view = a_view(found, pods=(a_pod(*(v.number for v in found.spec.versions)),))
    return with_entries(found, told(checked(found, view), view).versions)


def listing(found: InferenceModel, builder: ModelBuilder) -> InferenceModel:
    """Return the model after its spec was edited; its status is as it was."""
    return with_entries(model(builder), found.status.versions)


def entry_of(verdict: ModelVerdict, number: int) -> VersionStatus | None:
    return next((entry for entry in verdict.versions if entry.number == number), None)


def test_a_removed_number_is_bound_to_its_content_while_its_engine_is_kept() -> None:
    before = served(model(a_builder(1, 2)))
    after = listing(before, a_builder(2))
    engine = engine_of(before, 1).name
    view = a_view(after, pods=(a_pod(2),))
    kept = entry_of(told(after, view, kept={engine}), 1)
    assert kept is not None
    assert (kept.state, kept.engines, kept.pods) == (VersionState.REMOVED, (engine,), None)
    assert kept.content_digest == versions.content(before, before.spec.versions[0])
    assert entry_of(told(after, view, kept=set()), 1) is None


def test_a_removed_number_retires_while_the_tree_has_it() -> None:
    after = listing(served(model(a_builder(1, 2))), a_builder(2))
    view = a_view(after, in_tree={1, 2}, pods=(a_pod(1, 2),))
    entry = entry_of(told(after, view, kept=set()), 1)
    assert entry is not None
    assert (entry.state, entry.pods) == (VersionState.RETIRING, "1/1")


def rebuilt(found: InferenceModel) -> ServerView:
    """Return a server's view in which the plan itself says what a number may mean."""
    store = a_snapshot(*(an_entry(engine_of(found, v.number)) for v in found.spec.versions))
    builds = versions.builds(
        found, versions.Site(REPOSITORY_UID), store=store, outcomes=versions.Outcomes(), in_tree={}
    )
    return ServerView(name="default", builds=builds)


def test_a_number_that_comes_back_with_other_content_stays_refused_however_often() -> None:
    before = served(model(a_builder(1, 2)))
    engine = str(engine_of(before, 1).name)
    found = before
    for _ in range(3):
        found = listing(found, a_builder(2))
        found = with_entries(found, told(found, rebuilt(found), kept={engine}).versions)
        found = listing(
            found, a_builder(1, 2, content="other").with_version(2, "pvc://s/2.onnx", sha256=sha("2"))
        )
        verdict = told(found, rebuilt(found), kept={engine})
        assert verdict.outcome.reason == "VersionReused"
        found = with_entries(found, verdict.versions)
    again = listing(found, a_builder(1, 2))
    assert all(build.is_ready for build in rebuilt(again).builds)


def test_an_engine_that_a_tree_still_has_is_remembered_and_needs_a_check_of_its_own() -> None:
    found = served(model(a_builder(1)))
    old = str(engine_of(found, 1).name)
    view = a_view(found, in_tree=set(), pods=(a_pod(1),), repository_uid="made anew")
    view = dataclasses.replace(view, in_tree={1: old})
    entry = entry_of(told(found, view), 1)
    assert entry is not None
    assert entry.engines == (engine_of(found, 1, repository_uid="made anew").name, old)
    assert entry.checks == ()
    gone = entry_of(told(with_entries(found, (entry,)), dataclasses.replace(view, in_tree={})), 1)
    assert gone is not None
    assert gone.engines == entry.engines[:1]


def test_a_number_is_free_again_when_its_engine_is_gone() -> None:
    before = served(model(a_builder(1, 2)))
    found = listing(before, a_builder(2))
    found = with_entries(found, told(found, rebuilt(found), kept=set()).versions)
    found = listing(found, a_builder(2).with_version(1, "pvc://s/1.onnx", sha256=sha("other")))
    assert all(build.is_ready for build in rebuilt(found).builds)


# -- at rest nothing changes ---------------------------------------------------------------------

NUMBERS = (1, 2, 3)
states = st.one_of(
    st.builds(Ready, st.just("Built"), st.just("")),
    st.builds(Waiting, st.just("Building"), st.text(max_size=5)),
    st.builds(Stalled, st.sampled_from(["InvalidModel", "VersionReused"]), st.text(max_size=5)),
)
some = st.sets(st.sampled_from(NUMBERS))
pods = st.lists(
    st.builds(
        lambda ready, current, trouble: a_pod(*ready, current=current, trouble=trouble),
        some,
        st.booleans(),
        st.sampled_from(["", "load failed"]),
    ),
    max_size=2,
).map(tuple)


@given(
    st.sets(st.sampled_from(NUMBERS), min_size=1),
    st.dictionaries(st.sampled_from(NUMBERS), states),
    some,
    pods,
    some,
    st.integers(0, 2),
)
def test_a_status_that_is_read_back_gives_the_same_status(  # noqa: PLR0917 - drawn
    listed: set[int],
    outcomes: dict[int, Outcome],
    in_tree: set[int],
    found_pods: tuple[PodView, ...],
    has_check: set[int],
    wanted: int,
) -> None:
    before = served(model(a_builder(*NUMBERS)))
    found = listing(before, a_builder(*sorted(listed)))
    entries = tuple(
        entry if entry.number in has_check else entry.model_copy(update={"checks": ()})
        for entry in found.status.versions
    )
    found = with_entries(found, entries)
    view = a_view(found, outcomes=outcomes, in_tree=in_tree, pods=found_pods, wanted=wanted)
    kept = {str(engine_of(before, n).name) for n in (1, 2)}
    first = told(found, view, kept=kept)
    raw = [entry.to_manifest() for entry in first.versions]
    again = told(with_entries(found, tuple(map(VersionStatus.model_validate, raw))), view, kept=kept)
    assert again == first
    assert {entry.number for entry in first.versions} >= listed


def test_a_version_on_trial_is_told_step_by_step() -> None:
    found = model(a_builder(1, 2))
    view = a_view(found, pods=(a_pod(1),))
    found = with_entries(found, checked(model(a_builder(1)), a_view(model(a_builder(1)))).status.versions)
    told_of = [
        told(found, tried(view, 2, **more)).versions[1]
        for more in (
            {},
            {"pod": "pod-1"},
            {"pod": "pod-1", "trouble": "load failed once: no memory"},
            {"pod": "pod-1", "ready": True},
        )
    ]
    assert [entry.reason for entry in told_of] == ["Queued", "Trying", "LoadFailed", "Checking"]
    assert {entry.state for entry in told_of} == {VersionState.CANDIDATE}
    assert "model.candidate on pod pod-1" in (told_of[1].message or "")
    assert "no memory" in (told_of[2].message or "")


def test_what_stands_in_the_way_of_a_check_is_told() -> None:
    found = model(a_builder(1, 2))
    view = tried(a_view(found, pods=(a_pod(1),)), 2, pod="pod-1", ready=True)
    missing = Stalled("SourceNotFound", "no such file: samples.npz")
    surroundings = Surroundings(kept_engines=(), now=NOW, samples=missing)
    verdict = model_status.verdict(found, [view], surroundings)
    assert verdict.versions[1].reason == "SourceNotFound"


def test_a_candidate_is_checked_under_its_own_name() -> None:
    found = model(a_builder(1, 2))
    view = a_view(found, pods=(a_pod(1),))
    trying = tried(view, 2, pod="pod-1", ready=True)
    engine = engine_of(found, 2).name
    assert Question(2, engine, "pod-1", "model.candidate") in verdicts.unchecked(found, trying)
    waiting = tried(view, 2, pod="pod-1")
    assert [question.number for question in verdicts.unchecked(found, waiting)] == [1]


def test_a_candidate_that_its_pod_cannot_load_is_judged_once() -> None:
    found = model(a_builder(1, 2))
    view = tried(a_view(found), 2, pod="pod-1", trouble="no memory", given_up=Fault.FAILED)
    ((number, engine, fault, message),) = verdicts.unloadable(found, view)
    assert (number, fault, message) == (2, Fault.FAILED, "pod pod-1: no memory")
    check = verdicts.load_verdict(found, engine, fault, message)
    found = with_entries(found, verdicts.with_check(found, number, check))
    assert verdicts.unloadable(found, view) == []
    entry = told(found, view).versions[1]
    assert (entry.state, entry.reason, entry.message) == (VersionState.FAILED, "LoadFailed", message)


def a_new_version(*, served: bool = False) -> InferenceModel:
    """Return a model whose version 1 has long been served, and version 2 was just promoted."""
    entries = [
        VersionStatus(number=n, state=VersionState.PROMOTED, served_since=NOW if n == 1 or served else None)
        for n in (1, 2)
    ]
    return with_entries(model(a_builder(1, 2)), tuple(entries))


REFUSING = a_pod(1, name="pod-2", trouble="no memory", given_up=Fault.FAILED)


def test_a_new_version_that_one_pod_refuses_is_taken_back() -> None:
    found = a_new_version()
    view = a_view(found, pods=(a_pod(1, 2), REFUSING))
    ((number, _, fault, message),) = verdicts.unloadable(found, view)
    assert (number, fault, message) == (2, Fault.FAILED, "pod pod-2: no memory")


def test_a_version_that_was_served_stays_when_a_later_pod_refuses_it() -> None:
    found = a_new_version(served=True)
    view = a_view(found, pods=(a_pod(1, 2), REFUSING))
    assert verdicts.unloadable(found, view) == []
    outcome = told(found, view).outcome
    assert (type(outcome), outcome.reason) == (Stalled, "LoadFailed")
    assert "pod pod-2: no memory" in outcome.message


def test_the_only_version_stays_for_the_pods_that_can_load_it_unless_it_ends_containers() -> None:
    found = with_entries(model(a_builder(1)), (VersionStatus(number=1, state=VersionState.PROMOTED),))
    refused = a_pod(name="pod-2", trouble="no memory", given_up=Fault.FAILED)
    assert verdicts.unloadable(found, a_view(found, pods=(a_pod(1), refused))) == []
    crashed = a_pod(name="pod-2", trouble="ended", given_up=Fault.CRASHED)
    assert len(verdicts.unloadable(found, a_view(found, pods=(a_pod(1), crashed)))) == 1


def test_it_is_remembered_since_when_a_version_was_once_served_by_all() -> None:
    found = model(a_builder(1))
    half, full = a_view(found, pods=(a_pod(1), a_pod(name="p2"))), a_view(found, pods=(a_pod(1),))
    found = with_entries(found, (VersionStatus(number=1, state=VersionState.BUILT),))
    assert told(found, half).versions[0].served_since is None
    served = told(found, full).versions
    assert served[0].served_since == NOW
    assert told(with_entries(found, served), half).versions[0].served_since == NOW
    gone = dataclasses.replace(full, in_tree={})
    assert told(with_entries(found, served), gone).versions[0].served_since is None


def test_after_a_loss_of_the_status_nothing_in_a_tree_counts_as_new() -> None:
    found = model(a_builder(1, 2))
    view = a_view(found, pods=(a_pod(1, 2), REFUSING))
    verdict = told(found, view)
    assert all(entry.served_since for entry in verdict.versions)
    assert verdicts.unloadable(with_entries(found, verdict.versions), view) == []


def test_a_failed_version_that_was_removed_is_tried_again_when_it_returns() -> None:
    both = model(a_builder(1, 2))
    view = a_view(both, in_tree={1}, pods=(a_pod(1),))
    failed = checked(both, view, reason="WrongAnswers").status.versions
    entries = told(with_entries(both, failed), view).versions
    alone = with_entries(model(a_builder(1)), entries)
    kept = {engine_of(both, n).name for n in (1, 2)}
    removed = told(alone, a_view(alone, pods=(a_pod(1),)), kept=kept).versions[1]
    assert (removed.state, removed.checks) == (VersionState.REMOVED, ())


def test_of_a_tree_that_cannot_be_looked_at_the_last_word_holds() -> None:
    found = model(a_builder(1))
    view = a_view(found, pods=(a_pod(1),))
    served = with_entries(found, told(checked(found, view), view).versions)
    unknown = ServerView(name="default", refusal=Waiting("ServerNotReady", "…"), known=False)
    entry = told(served, unknown).versions[0]
    assert entry.state is VersionState.PROMOTED
    assert entry.served_since == NOW
    gone = with_entries(model(a_builder(2)), served.status.versions)
    assert told(gone, unknown).versions[0].state is VersionState.RETIRING
