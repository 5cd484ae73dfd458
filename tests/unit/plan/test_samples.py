from __future__ import annotations

import datetime
from typing import Any

from tests import observed
from tests.builders import a_model, a_repository
from tests.observed import NOW, REPOSITORY_UID, engine_of, model, repository, sha

from engine_builder import names as store_names
from triton_operator.plan import jobs, names, podspec, samples
from triton_operator.plan.attempts import KEPT_SECONDS
from triton_operator.plan.podspec import Images
from triton_operator.resources.inference_model import InferenceModel

Object = dict[str, Any]

NO_SAMPLES = a_model("other").with_version(1, "pvc://s/1.onnx", sha256=sha("1"))
URI = "pvc://tests/samples.npz"
DIGEST = sha("samples")
IMAGES = Images(engine_builder="registry/engine-builder:1")


def a_checked_model(name: str = "detector", uri: str = URI, **more: Any) -> InferenceModel:
    """Build a model of two versions with samples of its own."""
    builder = a_model(name).with_spec(check={"samples": {"uri": uri, **more}})
    for number in (1, 2):
        builder = builder.with_version(number, f"pvc://s/{number}.onnx", sha256=sha(str(number)))
    return model(builder, generation=4)


def an_entry(found: InferenceModel, engine: str = "onnxruntime-1") -> samples.Entry:
    entry = samples.entry(found, engine)
    assert entry is not None
    return entry


def a_job(found: InferenceModel, attempt: int = 1) -> Object:
    return jobs.reference(
        model=found,
        engine="onnxruntime-1",
        entry=an_entry(found),
        attempt=attempt,
        repository=repository(a_repository("models")),
        images=IMAGES,
    )


def arguments_of(job: Object) -> list[str]:
    return list(job["spec"]["template"]["spec"]["containers"][0]["args"])


# -- Entries ---------------------------------------------------------------------------------------


def test_a_model_without_samples_has_no_entry() -> None:
    found = model(NO_SAMPLES)
    assert samples.entry(found, "onnxruntime-1") is None
    assert samples.kept([found], repository_uid=REPOSITORY_UID) == set()


def test_an_entry_is_a_name_of_the_store_and_no_engines() -> None:
    entry = an_entry(a_checked_model())
    assert store_names.is_engine(entry.name)
    assert store_names.is_digest(entry.key)
    assert samples.is_entry(entry.name)
    assert not samples.is_entry(engine_of(a_checked_model(), 1).name)


def test_other_samples_another_engine_or_another_model_are_another_entry() -> None:
    different = [
        an_entry(a_checked_model()),
        an_entry(a_checked_model(uri="pvc://tests/other.npz")),
        an_entry(a_checked_model(sha256=DIGEST)),
        an_entry(a_checked_model(sha256=sha("corrected"))),
        an_entry(a_checked_model(), "onnxruntime-2"),
        an_entry(a_checked_model("classifier")),
    ]
    assert len({entry.name for entry in different}) == len(different)


def test_samples_of_a_known_digest_may_move() -> None:
    here, there = (a_checked_model(uri=uri, sha256=DIGEST) for uri in (URI, "pvc://archive/s.npz"))
    assert an_entry(here) == an_entry(there)


def test_entries_of_all_listed_versions_are_kept() -> None:
    found = a_checked_model()
    wanted = {an_entry(found, engine_of(found, number).name).name for number in (1, 2)}
    assert samples.kept([found, model(NO_SAMPLES)], repository_uid=REPOSITORY_UID) == wanted
    one = found.model_copy(
        update={"spec": found.spec.model_copy(update={"versions": found.spec.versions[:1]})}
    )
    assert samples.kept([one], repository_uid=REPOSITORY_UID) < wanted
    assert samples.kept([found], repository_uid="another").isdisjoint(wanted)


def test_a_version_whose_digest_is_not_known_keeps_nothing_yet() -> None:
    found = model(
        a_model().with_version(1, "pvc://s/1.onnx").with_spec(check={"samples": {"uri": URI}}), generation=1
    )
    assert samples.kept([found], repository_uid=REPOSITORY_UID) == set()


# -- Jobs ------------------------------------------------------------------------------------------


def test_the_job_is_told_entry_engine_and_source() -> None:
    found = a_checked_model(uri="pvc://tests/a$$b.npz", sha256=DIGEST)
    entry = an_entry(found)
    assert arguments_of(a_job(found)) == [
        "reference",
        "--repository=/repository",
        "--engine=onnxruntime-1",
        f"--entry={entry.name}",
        f"--key={entry.key}",
        "--source=pvc://tests/a$$$$b.npz",
        "--source-root=/source",
        f"--sha256={DIGEST}",
        "--staging-uid=$(POD_UID)",
        "--termination-log=/dev/termination-log",
    ]
    assert not any(a.startswith("--sha256") for a in arguments_of(a_job(a_checked_model())))


def test_the_job_reads_the_claim_of_the_samples_and_writes_to_the_repositorys() -> None:
    pod = a_job(a_checked_model())["spec"]["template"]["spec"]
    volumes = {volume["name"]: volume for volume in pod["volumes"]}
    assert volumes["source"]["persistentVolumeClaim"] == {"claimName": "tests", "readOnly": True}
    claim = repository(a_repository("models")).claim_name
    assert volumes["repository"]["persistentVolumeClaim"] == {"claimName": claim}
    assert pod["automountServiceAccountToken"] is False
    assert pod["securityContext"] == podspec.pod_security()


def test_job_and_pod_carry_the_label_by_which_their_changes_find_the_model() -> None:
    found = a_checked_model()
    job, entry = a_job(found, attempt=3), an_entry(found)
    assert job["metadata"]["name"] == f"{entry.name}-3"
    assert job["metadata"]["ownerReferences"][0]["uid"] == found.metadata.uid
    assert job["metadata"]["labels"][names.GENERATION] == "4"
    for labels in (job["metadata"]["labels"], job["spec"]["template"]["metadata"]["labels"]):
        assert entry.labels.items() <= labels.items()
        assert labels[names.RESOLVE] == entry.name


def a_past_job(found: InferenceModel, base: str, *, end: str | None = None, **more: Any) -> Object:
    job = observed.a_job(1, end=end, **more)
    job["metadata"]["labels"][names.RESOLVE] = base
    job["metadata"]["ownerReferences"] = podspec.owned(found)
    return job


def unneeded(found: InferenceModel, *past: Object, later: float = 0) -> list[Object]:
    now = NOW + datetime.timedelta(seconds=later)
    return samples.unneeded(past, found, wanted={"samples-1"}, now=now)


def test_jobs_for_samples_that_are_not_wanted_any_more_go_whatever_they_do() -> None:
    found = a_checked_model()
    others = [a_past_job(found, "samples-2", end=end) for end in (None, "Failed", "Complete")]
    assert unneeded(found, *others) == others
    assert unneeded(found, a_past_job(found, "samples-2", deleting=True)) == []
    assert unneeded(found, a_past_job(a_checked_model("another"), "samples-2")) == []


def test_a_job_that_made_its_samples_goes_when_its_log_has_had_its_time() -> None:
    found = a_checked_model()
    made, failed = (a_past_job(found, "samples-1", end=end) for end in ("Complete", "Failed"))
    assert unneeded(found, made, failed, a_past_job(found, "samples-1")) == []
    assert unneeded(found, made, failed, later=KEPT_SECONDS + 1) == [made]
