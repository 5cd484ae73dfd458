from __future__ import annotations

import dataclasses
from typing import Any

from google.protobuf import text_format
from hypothesis import given
from hypothesis import strategies as st
from tests.builders import a_model, a_server
from tests.observed import (
    REPOSITORY_UID,
    a_snapshot,
    an_entry,
    engine_of,
    model,
    server,
    sha,
)
from tritonclient.grpc import model_config_pb2

from engine_builder.contract import TreeManifest
from triton_operator.plan import publish, versions
from triton_operator.plan.outcome import Ready, Stalled, Waiting
from triton_operator.plan.publish import Placement, Published, Seen
from triton_operator.plan.versions import Build, NeededEngine
from triton_operator.resources.inference_model import InferenceModel, InferenceModelStatus

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
    """A model on a server: what is listed, built, right or wrong, in the tree, and answering everywhere.

    `loaded` is what at least one pod has.
    """

    listed: set[int]
    built: set[int]
    right: set[int]
    wrong: set[int]
    in_tree: set[int]
    confirmed: set[int] | None
    loaded: set[int]

    def model(self) -> InferenceModel:
        builder = a_model()
        for number in self.listed:
            builder = builder.with_version(number, f"pvc://s/{number}.onnx", sha256=sha(str(number)))
        entries = []
        for number in NUMBERS:
            engine = ENGINES[number].name
            entry: Object = {"number": number, "state": "Promoted", "engines": [engine]}
            reason = "WrongAnswers" if number in self.wrong else "Succeeded" if number in self.right else None
            if reason:
                entry["checks"] = [{"engine": engine, "minimumCosine": "0.99", "reason": reason}]
            entries.append(entry)
        return model(builder, status={"versions": entries})

    def placed(self) -> Placement:
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
        seen = Seen(
            in_tree={number: ENGINES[number].name for number in self.in_tree},
            confirmed=None if self.confirmed is None else frozenset(self.confirmed),
            loaded=frozenset(self.loaded | (self.confirmed or set())),
        )
        placement = publish.place(found, builds, seen)
        assert placement.engines == {number: ENGINES[number].name for number in placement.engines}
        return placement

    def wanted(self) -> set[int]:
        return set(self.placed().engines)

    def tried(self) -> int | None:
        trial = self.placed().trial
        return trial[0] if trial else None

    @property
    def good(self) -> set[int]:
        """Return the versions that could serve, whether or not they were tried."""
        free = self.in_tree | (set(NUMBERS) - self.loaded - (self.confirmed or set()))
        return (self.listed & self.built & free) - self.wrong

    @property
    def serving(self) -> set[int]:
        return self.in_tree - self.wrong


situations = st.builds(Situation, listed, some, some, some, some, st.none() | some, some)


@given(situations)
def test_what_serves_goes_on_until_all_that_is_listed_answers_everywhere(now: Situation) -> None:
    trusted = now.good & (now.in_tree | now.right)
    if not trusted and not now.serving and now.good:
        trusted = {min(now.good)}
    if now.listed <= trusted & (trusted if now.confirmed is None else now.confirmed):
        assert now.wanted() == trusted
    else:
        assert now.wanted() == trusted | now.serving


@given(situations)
def test_a_new_version_is_tried_before_it_serves_beside_another(now: Situation) -> None:
    new = now.wanted() - now.in_tree - now.right
    assert not new or (len(new) == 1 and not now.serving), "only the first version of all goes in untried"


@given(situations)
def test_one_version_is_tried_at_a_time_and_none_in_vain(now: Situation) -> None:
    untried = now.good - now.wanted()
    assert now.tried() == (min(untried) if untried else None)


@given(situations)
def test_a_version_with_wrong_answers_never_stays(now: Situation) -> None:
    assert not now.wanted() & now.wrong
    assert now.tried() not in now.wrong


@given(situations)
def test_only_what_is_built_or_was_there_is_published(now: Situation) -> None:
    assert now.wanted() <= (now.listed & now.built) | now.in_tree


@given(situations)
def test_a_rollout_ends_with_exactly_the_listed_versions(now: Situation) -> None:
    now.built, now.wrong = now.listed | now.built, set()
    if now.confirmed is not None:
        now.confirmed &= now.in_tree
    now.loaded &= now.in_tree
    serving = now.confirmed or set()
    for _ in range(2 * len(NUMBERS)):
        after = now.wanted()
        assert serving <= after or now.listed <= serving, "a version left before all the others answered"
        if (tried := now.tried()) is not None:
            now.right = now.right | {tried}
        now.in_tree = after  # the keeper wrote it, and every pod has loaded it
        now.confirmed = now.loaded = serving = set(after)
    assert now.in_tree == now.listed
    assert now.tried() is None


@given(situations)
def test_a_pod_that_confirms_nothing_takes_no_version_from_the_others(now: Situation) -> None:
    now.confirmed = set()
    assert now.serving <= now.wanted()


@given(situations)
def test_deciding_again_changes_nothing(now: Situation) -> None:
    first = now.wanted()
    assert dataclasses.replace(now, in_tree=first).wanted() == first


def placed_of(found: InferenceModel, seen: Seen) -> Placement:
    digested = [version.number for version in found.spec.versions if version.source.sha256]
    builds = versions.builds(
        found,
        versions.Site(REPOSITORY_UID),
        store=a_snapshot(*(an_entry(engine_of(found, number)) for number in digested)),
        outcomes=versions.Outcomes(),
        in_tree=seen.in_tree,
    )
    return publish.place(found, builds, seen)


def test_what_a_former_model_of_the_name_left_goes_before_its_number_means_something_else() -> None:
    new = model(a_model().with_version(1, "pvc://s/1.onnx", sha256=sha("new")), uid="another")
    former = {1: str(ENGINES[1].name)}
    assert placed_of(new, Seen(in_tree=former, loaded=frozenset({1}))).engines == {}
    assert placed_of(new, Seen(in_tree={}, loaded=frozenset({1}))).engines == {}
    assert placed_of(new, Seen(in_tree={})).engines == {1: engine_of(new, 1).name}


def test_a_number_on_trial_is_given_up_before_it_means_something_else() -> None:
    new = model(
        a_model()
        .with_version(1, "pvc://s/1.onnx", sha256=sha("1"))
        .with_version(2, "pvc://s/2.onnx", sha256=sha("new"))
    )
    served = {1: str(ENGINES[1].name)}
    other = Seen(in_tree=served, on_trial={2: str(ENGINES[2].name)})
    assert placed_of(new, other).trial is None
    assert placed_of(new, Seen(in_tree=served)).trial == (2, engine_of(new, 2).name)


def test_a_lost_status_takes_no_version_away_whose_digest_is_still_to_be_found_out() -> None:
    found = model(a_model().with_version(1, "pvc://s/1.onnx"))  # neither sha256 nor status
    served = {1: str(ENGINES[1].name)}
    assert placed_of(found, Seen(in_tree=served, loaded=frozenset({1}))).engines == served


def test_a_lost_status_takes_no_version_away_whose_digest_is_known() -> None:
    served = {1: str(ENGINES[1].name)}
    found = model(a_model().with_version(1, "pvc://s/1.onnx", sha256=sha("1")))
    assert placed_of(found, Seen(in_tree=served, loaded=frozenset({1}))).engines == served


def test_the_same_content_under_another_engine_takes_over_without_a_gap() -> None:
    # the repository was made anew, or the preparing algorithm was raised
    old = "onnxruntime-0000000000000000"
    status = {"versions": [{"number": 1, "state": "Promoted", "engines": [old]}]}
    found = model(a_model().with_version(1, "pvc://s/1.onnx", sha256=sha("1")), status=status)
    build = Build(number=1, engine=ENGINES[1], content=None, outcome=Waiting("Building", ""))
    seen = Seen(in_tree={1: old}, confirmed=frozenset({1}), loaded=frozenset({1}))
    assert publish.place(found, [build], seen).engines == {1: old}
    built = dataclasses.replace(build, outcome=Ready("Built", ""))
    assert publish.place(found, [built], seen).engines == {1: ENGINES[1].name}


def test_a_failure_is_forgotten_when_the_serving_changes_and_a_success_is_not() -> None:
    for reason, trusted in (("WrongAnswers", False), ("Succeeded", True)):
        check = {"engine": ENGINES[2].name, "minimumCosine": "0.99", "reason": reason}
        before = model(
            a_model()
            .with_version(1, "pvc://s/1.onnx", sha256=sha("1"))
            .with_version(2, "pvc://s/2.onnx", sha256=sha("2"))
        )
        entry = {"number": 2, "state": "Failed", "engines": [ENGINES[2].name]}
        entry["checks"] = [{**check, "config": versions.judged_under(before)}]
        status = {"versions": [entry]}
        same = before.model_copy(update={"status": InferenceModelStatus.model_validate(status)})
        served = Seen(in_tree={1: str(ENGINES[1].name)})
        assert placed_of(same, served).trial is None
        assert (2 in placed_of(same, served).engines) is trusted
        serving = same.spec.serving.model_copy(update={"parameters": {"threads": "2"}})
        changed = same.model_copy(update={"spec": same.spec.model_copy(update={"serving": serving})})
        assert (placed_of(changed, served).trial is None) is trusted


STORE = {str(engine.name): an_entry(engine) for engine in ENGINES.values()}


def made_of(found: InferenceModel, *numbers: int, tried: int | None = None) -> Published:
    trial = (tried, str(ENGINES[tried].name)) if tried is not None else None
    made = publish.publish(found, Placement({n: ENGINES[n].name for n in numbers}, trial), STORE)
    assert made is not None
    return made


def test_tree_and_pods_get_the_same_configuration() -> None:
    made = made_of(model(ALL), 2, 1)
    (tree,) = made.trees()
    assert tree.config == made.desired().config
    assert tree.versions == {"1": ENGINES[1].name, "2": ENGINES[2].name}
    assert made.desired().versions == {1, 2}
    assert made.desired().fingerprint in tree.config


def test_a_candidate_lies_in_the_tree_so_that_no_pod_loads_it_by_itself() -> None:
    made = made_of(model(ALL), 1, tried=2)
    assert made.trial is not None
    own, candidate = made.trees()
    assert (own.name, candidate.name) == ("model", "model.candidate")
    assert candidate.versions == {"2": ENGINES[2].name}
    told = text_format.Parse(candidate.config, model_config_pb2.ModelConfig())
    assert told.version_policy.WhichOneof("policy_choice") == "specific"
    assert not told.version_policy.specific.versions
    loaded = text_format.Parse(made.trial.desired().config, model_config_pb2.ModelConfig())
    assert list(loaded.version_policy.specific.versions) == [2]
    assert made.trial.desired().trial


def test_nothing_is_published_of_a_model_without_versions() -> None:
    assert publish.publish(model(ALL), Placement({}), STORE) is None


def test_a_manifest_does_not_depend_on_the_order_of_models() -> None:
    made = [made_of(model(ALL.named_in_triton(name)), 1, tried=2) for name in ("b", "a")]
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
