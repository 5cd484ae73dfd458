from __future__ import annotations

import dataclasses
from typing import Any

from hypothesis import given
from hypothesis import strategies as st
from tests.builders import a_model, a_server
from tests.observed import (
    REPOSITORY_UID,
    a_signature,
    a_snapshot,
    an_entry,
    engine_of,
    model,
    server,
    sha,
)

from engine_builder.contract import TreeManifest
from triton_operator.plan import publish, versions
from triton_operator.plan.outcome import Ready, Stalled, Waiting
from triton_operator.plan.versions import Build, NeededEngine
from triton_operator.resources.inference_model import InferenceModel

Object = dict[str, Any]
NUMBERS = (1, 2, 3, 4)

ALL = a_model()
for _number in NUMBERS:
    ALL = ALL.with_version(_number, f"pvc://s/{_number}.onnx", sha256=sha(str(_number)))
ENGINES: dict[int, NeededEngine] = {number: engine_of(model(ALL), number) for number in NUMBERS}

some = st.sets(st.sampled_from(NUMBERS))
listed = st.sets(st.sampled_from(NUMBERS), min_size=1)


@dataclasses.dataclass
class Situation:
    """A model on a server: what is listed, built, found wrong, in the tree, and answering everywhere.

    `loaded` is what at least one pod has.
    """

    listed: set[int]
    built: set[int]
    wrong: set[int]
    in_tree: set[int]
    confirmed: set[int]
    loaded: set[int]

    def model(self) -> InferenceModel:
        builder = a_model()
        for number in self.listed:
            builder = builder.with_version(number, f"pvc://s/{number}.onnx", sha256=sha(str(number)))
        entries = []
        for number in NUMBERS:
            engine = ENGINES[number].name
            entry: Object = {"number": number, "state": "Promoted", "engines": [engine]}
            if number in self.wrong:
                entry["check"] = {"engine": engine, "minimumCosine": "0.99", "reason": "WrongAnswers"}
            entries.append(entry)
        return model(builder, status={"versions": entries})

    def wanted(self) -> set[int]:
        found = self.model()
        builds = [
            Build(
                number=number,
                engine=ENGINES[number],
                content=None,
                outcome=Ready("Built", "") if number in self.built else Waiting("Building", ""),
            )
            for number in sorted(self.listed)
        ]
        engines = publish.engines_of(
            found,
            builds,
            in_tree={number: ENGINES[number].name for number in self.in_tree},
            confirmed=frozenset(self.confirmed),
            loaded=frozenset(self.loaded | self.confirmed),
        )
        assert engines == {number: ENGINES[number].name for number in engines}
        return set(engines)


situations = st.builds(Situation, listed, some, some, some, some, some)


@given(situations)
def test_what_serves_goes_on_until_all_that_is_listed_answers_everywhere(now: Situation) -> None:
    free = now.in_tree | (set(NUMBERS) - now.loaded - now.confirmed)
    good = (now.listed & now.built & free) - now.wrong
    if now.listed <= good & now.confirmed:
        assert now.wanted() == good
    else:
        assert now.wanted() == good | (now.in_tree - now.wrong)


@given(situations)
def test_a_version_with_wrong_answers_never_stays(now: Situation) -> None:
    assert not now.wanted() & now.wrong


@given(situations)
def test_only_what_is_built_or_was_there_is_published(now: Situation) -> None:
    assert now.wanted() <= (now.listed & now.built) | now.in_tree


@given(situations)
def test_a_rollout_ends_with_exactly_the_listed_versions(now: Situation) -> None:
    now.built, now.wrong = now.listed | now.built, set()
    serving = now.confirmed = now.confirmed & now.in_tree
    now.loaded &= now.in_tree
    for _ in range(3):
        after = now.wanted()
        assert serving <= after or now.listed <= serving, "a version left before all the others answered"
        now.in_tree = after  # the keeper wrote it, and every pod has loaded it
        now.confirmed = now.loaded = serving = set(after)
    assert now.in_tree == now.listed


@given(situations)
def test_a_pod_that_does_not_answer_takes_no_version_from_the_others(now: Situation) -> None:
    now.confirmed = set()
    assert now.in_tree - now.wrong <= now.wanted()


@given(situations)
def test_deciding_again_changes_nothing(now: Situation) -> None:
    first = now.wanted()
    assert dataclasses.replace(now, in_tree=first).wanted() == first


def wanted_of(found: InferenceModel, *, in_tree: dict[int, str], loaded: frozenset[int]) -> dict[int, str]:
    digested = [version.number for version in found.spec.versions if version.source.sha256]
    builds = versions.builds(
        found,
        repository_uid=REPOSITORY_UID,
        store=a_snapshot(*(an_entry(engine_of(found, number)) for number in digested)),
        outcomes=versions.Outcomes(),
        in_tree=in_tree,
    )
    return publish.engines_of(found, builds, in_tree=in_tree, confirmed=frozenset(), loaded=loaded)


def test_what_a_former_model_of_the_name_left_goes_before_its_number_means_something_else() -> None:
    new = model(a_model().with_version(1, "pvc://s/1.onnx", sha256=sha("new")), uid="another")
    former = {1: str(ENGINES[1].name)}
    assert wanted_of(new, in_tree=former, loaded=frozenset({1})) == {}
    assert wanted_of(new, in_tree={}, loaded=frozenset({1})) == {}
    assert wanted_of(new, in_tree={}, loaded=frozenset()) == {1: engine_of(new, 1).name}


def test_a_lost_status_takes_no_version_away_whose_digest_is_still_to_be_found_out() -> None:
    found = model(a_model().with_version(1, "pvc://s/1.onnx"))  # neither sha256 nor status
    served = {1: str(ENGINES[1].name)}
    assert wanted_of(found, in_tree=served, loaded=frozenset({1})) == served


def test_a_lost_status_takes_no_version_away_whose_digest_is_known() -> None:
    served = {1: str(ENGINES[1].name)}
    found = model(a_model().with_version(1, "pvc://s/1.onnx", sha256=sha("1")))
    assert wanted_of(found, in_tree=served, loaded=frozenset({1})) == served


def test_the_same_content_under_another_engine_takes_over_without_a_gap() -> None:
    # the repository was made anew, or the preparing algorithm was raised
    old = "onnxruntime-0000000000000000"
    status = {"versions": [{"number": 1, "state": "Promoted", "engines": [old]}]}
    found = model(a_model().with_version(1, "pvc://s/1.onnx", sha256=sha("1")), status=status)
    build = Build(number=1, engine=ENGINES[1], content=None, outcome=Waiting("Building", ""))
    more = {"in_tree": {1: old}, "confirmed": frozenset({1}), "loaded": frozenset({1})}
    assert publish.engines_of(found, [build], **more) == {1: old}
    built = dataclasses.replace(build, outcome=Ready("Built", ""))
    assert publish.engines_of(found, [built], **more) == {1: ENGINES[1].name}


def test_tree_and_pods_get_the_same_configuration() -> None:
    found = model(ALL)
    made = publish.publish(found, {n: ENGINES[n].name for n in (2, 1)}, a_signature())
    assert made.tree().config == made.desired().config
    assert made.tree().versions == {"1": ENGINES[1].name, "2": ENGINES[2].name}
    assert made.desired().versions == {1, 2}
    assert made.desired().fingerprint in made.tree().config


def test_a_manifest_does_not_depend_on_the_order_of_models() -> None:
    made = [
        publish.publish(model(ALL.named_in_triton(name)), {1: ENGINES[1].name}, a_signature())
        for name in ("b", "a")
    ]
    first, second = publish.manifest(made, kept=["d", "c"]), publish.manifest(made[::-1], kept=["c", "d"])
    assert first == second
    assert first.revision == second.revision != TreeManifest(models=()).revision


def a_rival(name: str, *, triton_name: str = "detector", created: float = 0, uid: str = "") -> InferenceModel:
    builder = a_model(name).with_version(1, "pvc://s/1.onnx").named_in_triton(triton_name)
    return model(builder, created=created, uid=uid)


def test_of_two_models_with_one_name_the_older_serves() -> None:
    old, new = a_rival("old"), a_rival("new", created=5)
    for rivals in ([old, new], [new, old]):
        assert publish.refusal(old, server(a_server()), rivals) is None
        refused = publish.refusal(new, server(a_server()), rivals)
        assert isinstance(refused, Stalled)
        assert refused.reason == "ModelNameTaken"
        assert "InferenceModel old" in refused.message


def test_the_newer_takes_over_when_the_older_is_gone() -> None:
    new = a_rival("new", created=5)
    assert publish.refusal(new, server(a_server()), [new]) is None


@given(
    st.lists(st.tuples(st.integers(0, 2), st.sampled_from("abcdef")), min_size=1, unique_by=lambda x: x[1])
)
def test_exactly_one_of_any_number_of_rivals_serves(ages: list[tuple[int, str]]) -> None:
    rivals = [a_rival(uid, created=age, uid=uid) for age, uid in ages]
    serving = [r for r in rivals if publish.refusal(r, server(a_server()), rivals) is None]
    assert serving == [min(rivals, key=publish.seniority)]


def test_other_names_are_no_rivals() -> None:
    first, second = a_rival("first"), a_rival("second", triton_name="other", created=5)
    assert publish.refusal(second, server(a_server()), [first, second]) is None


def test_a_backend_that_a_server_does_not_allow_is_refused() -> None:
    nothing = server(a_server())
    nothing = nothing.model_copy(update={"spec": nothing.spec.model_copy(update={"allowed_backends": ()})})
    refused = publish.refusal(a_rival("model"), nothing, [])
    assert isinstance(refused, Stalled)
    assert refused.reason == "BackendNotAllowed"
    assert "allowedBackends" in refused.message
