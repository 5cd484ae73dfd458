from __future__ import annotations

import dataclasses
from typing import Any

import pytest
from tests.builders import ModelBuilder, a_model
from tests.observed import (
    REPOSITORY_UID,
    a_signature,
    a_snapshot,
    a_tensor,
    an_entry,
    engine_of,
    model,
    sha,
)

from engine_builder.contract import CompileOptions, ProfileInput, Signature, Snapshot, Target
from triton_operator.plan import versions
from triton_operator.plan.outcome import Outcome, Ready, Stalled, Waiting
from triton_operator.plan.versions import Build, Outcomes, Site, Sites
from triton_operator.resources.inference_model import InferenceModel
from triton_operator.resources.version import Build as BuildOptions

Object = dict[str, Any]


def with_versions(*numbers: int, content: str = "") -> ModelBuilder:
    builder = a_model()
    for number in numbers:
        builder = builder.with_version(number, f"pvc://s/{number}.onnx", sha256=sha(f"{content}{number}"))
    return builder


def builds(
    found: InferenceModel,
    *,
    store: Snapshot | None = None,
    outcomes: Outcomes | None = None,
    in_tree: dict[int, str] | None = None,
) -> dict[int, Build]:
    made = versions.builds(
        found,
        Site(REPOSITORY_UID),
        store=store or a_snapshot(),
        outcomes=outcomes or Outcomes(),
        in_tree=in_tree or {},
    )
    return {build.number: build for build in made}


def reasons(found: dict[int, Build]) -> dict[int, tuple[type[Outcome], str]]:
    return {number: (type(build.outcome), build.outcome.reason) for number, build in found.items()}


def stored_of(found: InferenceModel, **signatures: Signature) -> Snapshot:
    entries = [
        an_entry(engine_of(found, v.number), signatures.get(f"v{v.number}")) for v in found.spec.versions
    ]
    return a_snapshot(*entries)


def remembering(found: InferenceModel, *, state: str = "Promoted") -> Object:
    """Return the status that tells what the numbers of a model mean."""
    entries = [
        {
            "number": version.number,
            "state": state,
            "sha256": version.source.sha256,
            "contentDigest": versions.content(found, version),
            "engines": [engine_of(found, version.number).name],
        }
        for version in found.spec.versions
    ]
    return {"versions": entries}


def test_versions_come_in_the_order_of_their_numbers() -> None:
    assert list(builds(model(with_versions(3, 1, 2)))) == [1, 2, 3]


def test_a_version_is_ready_when_its_engine_lies_in_the_store() -> None:
    found = model(with_versions(1, 2))
    made = builds(found, store=a_snapshot(an_entry(engine_of(found, 1))))
    assert reasons(made) == {1: (Ready, "Built"), 2: (Waiting, "Building")}
    assert (made[1].signature, made[2].signature) == (a_signature(), None)


def test_an_entry_of_the_same_name_and_another_key_is_not_the_engine() -> None:
    found = model(with_versions(1))
    engine = engine_of(found, 1)
    other = dataclasses.replace(engine, key=versions.EngineKey(sha("other")))
    assert reasons(builds(found, store=a_snapshot(an_entry(other)))) == {1: (Waiting, "Building")}


def test_what_the_engine_object_says_is_passed_on_until_the_store_has_it() -> None:
    found = model(with_versions(1))
    name = engine_of(found, 1).name
    stalled = Stalled("InvalidModel", "not ONNX")
    assert builds(found, outcomes=Outcomes(engines={name: stalled}))[1].outcome == stalled
    early = builds(found, outcomes=Outcomes(engines={name: Ready("Built", "")}))[1].outcome
    assert (type(early), early.reason) == (Waiting, "Building")


def test_a_digest_that_is_not_known_is_found_out_first() -> None:
    found = model(a_model().with_version(1, "pvc://s/1.onnx"))
    made = builds(found)[1]
    assert (made.engine, made.content, made.outcome.reason) == (None, None, "Resolving")
    stalled = Stalled("SourceNotFound", "…")
    assert builds(found, outcomes=Outcomes(digests={1: stalled}))[1].outcome == stalled


def test_a_digest_that_was_found_out_holds_for_that_very_place() -> None:
    status = {"versions": [{"number": 1, "state": "Building", "uri": "pvc://s/1.onnx", "sha256": sha("1")}]}
    same = model(a_model().with_version(1, "pvc://s/1.onnx"), status=status)
    moved = model(a_model().with_version(1, "pvc://s/else.onnx"), status=status)
    assert versions.known_digest(same, same.spec.versions[0]) == sha("1")
    assert versions.known_digest(moved, moved.spec.versions[0]) is None


def test_a_digest_of_a_number_that_was_removed_is_found_out_anew() -> None:
    status = {"versions": [{"number": 1, "state": "Removed", "uri": "pvc://s/1.onnx", "sha256": sha("1")}]}
    found = model(a_model().with_version(1, "pvc://s/1.onnx"), status=status)
    assert versions.known_digest(found, found.spec.versions[0]) is None


def test_the_batch_size_of_a_build_needs_no_other_engine_but_is_part_of_the_meaning() -> None:
    small = model(a_model().with_version(1, "pvc://s/1.onnx", sha256=sha("1"), max_batch_size=1))
    large = model(a_model().with_version(1, "pvc://s/1.onnx", sha256=sha("1"), max_batch_size=64))
    assert engine_of(small, 1) == engine_of(large, 1)
    assert versions.content(small, small.spec.versions[0]) != versions.content(large, large.spec.versions[0])


def test_another_repository_needs_another_engine_of_the_same_content() -> None:
    found = model(with_versions(1))
    assert engine_of(found, 1) != engine_of(found, 1, repository_uid="another")


def test_a_number_that_meant_something_else_is_refused() -> None:
    before = model(with_versions(1))
    again = model(with_versions(1, content="other"), status=remembering(before, state="Removed"))
    made = builds(again, store=stored_of(again))
    assert reasons(made) == {1: (Stalled, "VersionReused")}
    assert made[1].is_reused


def test_a_number_that_comes_back_with_the_same_content_is_welcome() -> None:
    before = model(with_versions(1))
    again = model(with_versions(1), status=remembering(before, state="Removed"))
    assert reasons(builds(again, store=stored_of(again))) == {1: (Ready, "Built")}


def test_what_a_former_model_of_the_name_left_in_the_tree_binds_nobody() -> None:
    before, again = model(with_versions(1)), model(with_versions(1, content="other"), uid="another")
    in_tree = {1: str(engine_of(before, 1).name)}
    made = builds(again, store=stored_of(again), in_tree=in_tree)
    assert reasons(made) == {1: (Ready, "Built")}
    assert versions.own(again, list(made.values()), in_tree) == {}
    assert versions.own(before, list(builds(before).values()), in_tree) == in_tree


def test_the_same_content_prepared_anew_is_not_a_reuse() -> None:
    found = model(with_versions(1))
    known = model(with_versions(1), status=remembering(found))
    made = builds(known, store=stored_of(known), in_tree={1: "onnxruntime-of-an-older-algorithm"})
    assert reasons(made) == {1: (Ready, "Built")}


WIDE = a_signature(a_tensor("x", -1, 4))


def test_the_version_that_came_first_sets_the_signature() -> None:
    found = model(with_versions(1, 2))
    store = stored_of(found, v2=WIDE)
    assert reasons(builds(found, store=store)) == {1: (Ready, "Built"), 2: (Stalled, "SignatureMismatch")}
    in_tree = {2: engine_of(found, 2).name}
    made = builds(found, store=store, in_tree=in_tree)
    assert reasons(made) == {1: (Stalled, "SignatureMismatch"), 2: (Ready, "Built")}
    assert "version 2" in made[1].outcome.message


def test_a_version_that_is_retiring_still_sets_the_signature() -> None:
    before = model(with_versions(1))
    after = model(with_versions(2), status=remembering(before))
    store = a_snapshot(an_entry(engine_of(before, 1)), an_entry(engine_of(after, 2), WIDE))
    made = builds(after, store=store, in_tree={1: engine_of(before, 1).name})
    assert reasons(made) == {2: (Stalled, "SignatureMismatch")}


def test_versions_may_differ_in_the_batch_and_in_the_order_of_tensors() -> None:
    first = a_signature(a_tensor("a", -1, 3), a_tensor("b", -1, 2))
    second = a_signature(a_tensor("b", 8, 2), a_tensor("a", 8, 3))
    assert versions.comparable(first) == versions.comparable(second)
    for other in (
        a_signature(a_tensor("a", -1, 3)),
        a_signature(a_tensor("a", -1, 3), a_tensor("c", -1, 2)),
        a_signature(a_tensor("a", -1, 3), a_tensor("b", -1, 2, datatype="FP16")),
        a_signature(a_tensor("a", -1, 3), a_tensor("b", -1, 2, 1)),
    ):
        assert versions.comparable(first) != versions.comparable(other)


def checked(engines: list[str], engine: str, *, reason: str, cosine: str = "0.99") -> InferenceModel:
    check = {"engine": engine, "minimumCosine": cosine, "reason": reason, "message": "0.2 < 0.99"}
    entry = {"number": 1, "state": "Promoted", "engines": engines, "checks": [check]}
    return model(with_versions(1), status={"versions": [entry]})


def test_wrong_answers_count_until_engine_or_limit_change() -> None:
    wrong = checked(["e"], "e", reason="WrongAnswers")
    assert versions.failed_check(wrong, 1, "e") == Stalled("WrongAnswers", "0.2 < 0.99")
    assert versions.failed_check(wrong, 1, "another") is None
    assert versions.failed_check(wrong, 2, "e") is None
    other_limit = checked(["e"], "e", reason="WrongAnswers", cosine="0.9")
    assert versions.check_of(other_limit, 1, "e") is None
    assert versions.failed_check(checked(["e"], "e", reason="Succeeded"), 1, "e") is None


def test_one_check_is_for_the_engines_of_all_repositories() -> None:
    wrong = checked(["e1", "e2"], "e1", reason="WrongAnswers")
    assert versions.failed_check(wrong, 1, "e2") is not None
    assert versions.check_of(wrong, 1, "e3") is None


def test_what_a_number_means_stays_the_same_when_builds_get_new_options() -> None:
    # another digest would make every version that is served now VersionReused
    plain = model(a_model().with_version(1, "pvc://s/1.onnx", sha256="a" * 64))
    sized = model(a_model().with_version(1, "pvc://s/1.onnx", sha256="a" * 64, max_batch_size=8))
    found = [versions.content(each, each.spec.versions[0]) for each in (plain, sized)]
    assert found == [
        "529c58e2e79f76fa954f13bb8cd56df350027d4934bda4cd94e0aa4419a4376f",
        "1dc41985335c96cc921a054a8b5b00f501ed39bae97162ceef9f1eeaf52b427d",
    ]


def test_what_a_number_means_depends_on_every_option_but_not_on_how_a_default_is_said() -> None:
    def meaning(**build: Any) -> object:
        return BuildOptions.model_validate(build).to_meaning()

    plain = meaning()
    profile = {"inputs": [{"name": "x", "min": [1], "opt": [2], "max": [4]}]}
    others = [
        meaning(maxBatchSize=8),
        meaning(profiles=[profile]),
        meaning(workspacePercent=50),
        meaning(optimizationLevel=0),
        meaning(portability="AmperePlus"),
    ]
    assert all(each != plain for each in others)
    said = meaning(maxBatchSize=16, workspacePercent=70, optimizationLevel=3, portability="Exact")
    assert said == plain
    assert meaning(profiles=[profile]) == meaning(profiles=[profile], maxBatchSize=4)


def test_options_of_a_build_reach_the_compile_stage() -> None:
    assert BuildOptions().compile_options == CompileOptions(max_batch_size=16)
    said = {
        "maxBatchSize": 8,
        "profiles": [{"inputs": [{"name": "x", "min": [1, 3], "opt": [4, 3], "max": [8, 3]}]}],
        "workspacePercent": 50,
        "optimizationLevel": 0,
        "portability": "SameComputeCapability",
    }
    assert BuildOptions.model_validate(said).compile_options == CompileOptions(
        max_batch_size=8,
        profiles=((ProfileInput("x", (1, 3), (4, 3), (8, 3)),),),
        workspace_percent=50,
        optimization_level=0,
        portability="SameComputeCapability",
    )


# -- engines that are compiled for a GPU ---------------------------------------------------------

A10 = Target("NVIDIA-A10", "8.6", 23028)
L4 = Target("NVIDIA-L4", "8.9", 23034)


def on(target: Target | None, *, release: str = "26.07") -> Site:
    return Site(REPOSITORY_UID, release, target)


def compiled_model() -> InferenceModel:
    return model(with_versions(1).with_spec(backend="TensorRT", servers=["a10", "l4"]))


def needed(found: InferenceModel, site: Site) -> versions.NeededEngine:
    engine = versions.needed_engine(found, found.spec.versions[0], site)
    assert engine is not None
    return engine


def compiled(found: InferenceModel, site: Site, *stored: versions.NeededEngine, **outcomes: Outcome) -> Build:
    named = {name.replace("_", "-"): outcome for name, outcome in outcomes.items()}
    (build,) = versions.builds(
        found,
        site,
        store=a_snapshot(*map(an_entry, stored)),
        outcomes=Outcomes(engines=named),
        in_tree={},
    )
    return build


def test_a_compiled_engine_is_made_from_the_prepared_one_that_onnxruntime_serves_too() -> None:
    engine = needed(compiled_model(), on(A10))
    assert engine.name == f"tensorrt-{engine.key[:16]}"
    assert engine.prepared == engine_of(model(with_versions(1)), 1)
    assert [each.name for each in engine.lineage] == [engine.prepared.name, engine.name]


def test_targets_and_releases_have_engines_of_their_own_and_one_prepared_engine() -> None:
    found = compiled_model()
    sites = (on(A10), on(L4), on(A10, release="26.08"))
    engines = [needed(found, site) for site in sites]
    assert len({engine.name for engine in engines}) == len(sites)
    assert len({engine.prepared.name for engine in engines}) == 1
    assert needed(found, on(A10)) == engines[0]


def test_nothing_is_compiled_before_the_gpu_is_known_and_what_serves_goes_on() -> None:
    found = compiled_model()
    build = compiled(found, on(None))
    assert (build.engine, build.outcome.reason) == (None, "TargetUnknown")
    assert versions.own(found, [build], {1: "tensorrt-before"}) == {1: "tensorrt-before"}


def test_the_first_engine_of_the_lineage_that_is_missing_tells_how_far_the_version_is() -> None:
    found = compiled_model()
    engine = needed(found, on(A10))
    told = {
        engine.prepared.name.replace("-", "_"): Stalled("InvalidModel", "no ONNX"),
        engine.name.replace("-", "_"): Waiting("Queued", "waits for its turn"),
    }
    assert compiled(found, on(A10), **told).outcome.reason == "InvalidModel"
    assert compiled(found, on(A10), engine.prepared, **told).outcome.reason == "Queued"
    assert compiled(found, on(A10), engine.prepared, engine, **told).outcome.reason == "Built"
    assert compiled(found, on(A10), engine, **told).outcome.reason == "Built"


def test_all_engines_of_a_version_are_those_of_its_own_servers_in_the_repository() -> None:
    found = compiled_model()
    servers = {"a10": on(A10), "l4": on(L4), "another": on(A10, release="26.08"), "cpu": on(None)}
    engines = versions.engines_of(found, found.spec.versions[0], Sites(REPOSITORY_UID, servers))
    wanted = {engine for site in (on(A10), on(L4)) for engine in needed(found, site).lineage}
    assert set(engines) == wanted


# -- what is done to the numbers -------------------------------------------------------------------

CALIBRATED = {"precision": "INT8", "calibration": {"uri": "pvc://s/c.npz"}}


def built(build: Object | None) -> InferenceModel:
    return model(a_model("detector").with_version(1, "pvc://s/1.onnx", sha256=sha("1"), build=build))


def key_of(build: Object | None) -> str:
    return engine_of(built(build), 1).key


@pytest.mark.parametrize(
    "build", [None, {}, {"maxBatchSize": 4}, {"precision": "FP32"}, {"precision": "TF32"}]
)
def test_an_engine_whose_numbers_stay_has_the_key_that_it_always_had(build: Object | None) -> None:
    assert key_of(build) == "36efcd0f0133b2612fe67c4754b85c073d307f97ec756b9a607f37d621006f9d"


@pytest.mark.parametrize("build", [None, {"precision": "FP32", "keepIO": True}])
def test_a_number_means_what_it_meant_before_there_was_a_precision(build: Object | None) -> None:
    found = built(build)
    meaning = versions.content(found, found.spec.versions[0])
    assert meaning == "c59ab6759912eeac99f3c6710bee3cefc0ab0414cd580817d6d49f0a1ac031b2"


def test_every_option_that_changes_numbers_is_in_the_key_and_in_what_a_number_means() -> None:
    options: list[Object] = [
        {"precision": "FP32"},
        {"precision": "FP16"},
        {"precision": "FP16", "keepIO": False},
        {"precision": "INT8"},
        {"precision": "INT8", "calibration": {"generated": True}},
        CALIBRATED,
        {"precision": "INT8", "calibration": {"uri": "pvc://s/other.npz"}},
        {"precision": "INT8", "calibration": {"uri": "pvc://s/c.npz", "sha256": sha("c")}},
    ]
    assert len({key_of(build) for build in options}) == len(options)
    found = [built(build) for build in options]
    assert len({versions.content(each, each.spec.versions[0]) for each in found}) == len(options)


def test_the_secret_of_calibration_data_is_neither_in_the_key_nor_in_what_a_number_means() -> None:
    data: list[Object] = [{"uri": "s3://b/c.npz"} | secret for secret in ({}, {"secretName": "s3-read"})]
    found = [built({"precision": "INT8", "calibration": each}) for each in data]
    assert len({engine_of(each, 1).key for each in found}) == 1
    assert len({versions.content(each, each.spec.versions[0]) for each in found}) == 1


def test_calibration_data_with_a_digest_is_the_same_wherever_it_lies() -> None:
    places = ("pvc://s/c.npz", "pvc://other/c.npz")
    data = [{"uri": uri, "sha256": sha("c")} for uri in places]
    assert len({key_of({"precision": "INT8", "calibration": each}) for each in data}) == 1


# -- engines that are converted for CPUs ---------------------------------------------------------


def converted_model(**build: object) -> InferenceModel:
    builder = a_model().with_version(1, "pvc://s/1.onnx", sha256=sha("1"), build=build)
    return model(builder.with_spec(backend="OpenVINO", servers=["cpu", "a10"]))


def test_openvinos_engine_is_made_from_the_prepared_one_and_the_same_for_every_server() -> None:
    found = converted_model()
    engine = needed(found, on(None))
    assert engine.name == f"openvino-{engine.key[:16]}"
    assert engine.lineage == (engine_of(model(with_versions(1)), 1), engine)
    assert {needed(found, site) for site in (on(A10), on(L4, release="26.08"))} == {engine}
    sites = Sites(REPOSITORY_UID, {"cpu": on(None), "a10": on(A10)})
    assert versions.engines_of(found, found.spec.versions[0], sites) == list(engine.lineage)


def test_a_batch_size_converts_nothing_again_and_a_precision_does() -> None:
    first = needed(converted_model(), on(None))
    assert needed(converted_model(maxBatchSize=64), on(None)) == first
    assert needed(converted_model(precision="FP16"), on(None)).name != first.name
