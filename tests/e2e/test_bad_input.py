"""What users get wrong: refused at once, or told with a reason while other models go on serving."""

from __future__ import annotations

import dataclasses
import json
from typing import TYPE_CHECKING

import pytest
from tests.builders import a_claim, a_model, a_repository
from tests.e2e.cluster import kubectl
from tests.e2e.stage import BAD_PREFIX, SOURCES
from tests.onnx_models import write_external, write_multiply, write_unknown_operator

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

    from tests.builders import ModelBuilder
    from tests.e2e.stage import Stage


@dataclasses.dataclass(frozen=True)
class Bad:
    """A source that no model can be made of: how it is written, and what is said about it."""

    reason: str
    words: str
    write: Callable[[Path], object] | None
    sha256: str | None = None


def write_text(path: Path) -> None:
    path.write_text("this is not a model")


def write_truncated(path: Path) -> None:
    whole = write_multiply(path, 2.0)
    whole.write_bytes(whole.read_bytes()[:-20])


BAD = {
    "missing": Bad("SourceNotFound", "bad/missing.onnx", None),
    "digest": Bad("DigestMismatch", "0000", lambda path: write_multiply(path, 2.0), sha256="0" * 64),
    "text": Bad("InvalidModel", "", write_text),
    "truncated": Bad("InvalidModel", "", write_truncated),
    "escaping": Bad(
        "UnsafeSource", "outside.bin", lambda path: write_external(path, location="../outside.bin")
    ),
    "unknown": Bad("UnsupportedOperator", "NoSuchOperator", write_unknown_operator),
}


@pytest.fixture(scope="module")
def bad(shared: Stage) -> Iterator[Stage]:
    """The shared stage with a model for every bad source, all at once."""
    models = []
    for name, case in BAD.items():
        path = f"bad/{name}.onnx"
        uri = shared.put_written(path, case.write) if case.write else f"pvc://{SOURCES}/{path}"
        models.append(a_model(f"{BAD_PREFIX}{name}").with_version(1, uri, sha256=case.sha256))
    shared.apply(*models)
    yield shared
    shared.discard(*(model.name for model in models))


@pytest.mark.parametrize("name", BAD)
def test_bad_source_is_told_and_the_others_serve(bad: Stage, name: str) -> None:
    case, model = BAD[name], f"{BAD_PREFIX}{name}"
    bad.wait_stalled("InferenceModel", model, case.reason)
    version = bad.version_of(model)
    assert (version["state"], version["reason"]) == ("Failed", case.reason)
    assert version["message"]
    assert case.words in version["message"]

    def told() -> None:  # right after the status
        events = [event for event in bad.kube.list("Event") if event["involvedObject"]["name"] == model]
        assert (case.reason, "Warning") in {(event["reason"], event["type"]) for event in events}

    bad.eventually(told)
    bad.assert_nets_are_served()


def test_source_that_appears_later_is_found(guest: Stage) -> None:
    guest.apply(a_model("late").with_version(1, f"pvc://{SOURCES}/late.onnx"))
    guest.wait_stalled("InferenceModel", "late", "SourceNotFound")
    guest.put_model("late.onnx", 4.0)
    guest.wait_ready("InferenceModel", "late")
    assert set(guest.served_factors("late").values()) == {4.0}


def test_new_version_with_a_good_source_recovers(guest: Stage) -> None:
    uri = guest.put("mended-1.onnx", b"this is not a model")
    guest.apply(a_model("mended").with_version(1, uri))
    guest.wait_stalled("InferenceModel", "mended", "InvalidModel")
    guest.apply(a_model("mended").with_version(2, guest.put_model("mended-2.onnx", 3.0)))
    guest.wait_ready("InferenceModel", "mended")
    assert set(guest.served_factors("mended").values()) == {3.0}


def test_broken_version_leaves_the_old_one_serving(guest: Stage) -> None:
    model = a_model("steady").with_version(1, guest.put_model("steady-1.onnx", 2.0))
    guest.apply(model)
    guest.wait_ready("InferenceModel", "steady")
    guest.apply(model.with_version(2, guest.put("steady-2.onnx", b"this is not a model")))
    guest.wait_stalled("InferenceModel", "steady", "InvalidModel")
    assert set(guest.served_factors("steady").values()) == {2.0}
    assert guest.version_of("steady", 1)["state"] == "Promoted"


def test_older_of_two_models_with_one_triton_name_keeps_it(guest: Stage) -> None:
    older = a_model("older").named_in_triton("twice")
    newer = a_model("newer").named_in_triton("twice")
    guest.apply(older.with_version(1, guest.put_model("older.onnx", 2.0)))
    guest.wait_ready("InferenceModel", "older")
    guest.apply(newer.with_version(1, guest.put_model("newer.onnx", 3.0)))
    guest.wait_stalled("InferenceModel", "newer", "ModelNameTaken")
    assert "older" in guest.message("InferenceModel", "newer", "Stalled")
    assert set(guest.served_factors("twice").values()) == {2.0}


def test_any_order_of_apply_works(stage: Stage) -> None:
    stage.apply(a_model("early").with_version(1, f"pvc://{SOURCES}/early.onnx"))
    stage.wait_condition("InferenceModel", "early", "Reconciling", "True", reason="ServerNotFound")
    stage.apply(stage.a_server())
    stage.wait_condition("TritonServer", "default", "Reconciling", "True", reason="RepositoryNotFound")
    stage.apply(a_repository().on_claim("models"))
    stage.wait_condition("ModelRepository", "default", "Reconciling", "True", reason="ClaimNotFound")
    stage.apply(a_claim("models", size="64Mi"))
    stage.wait_ready("ModelRepository", "default")

    def waits_for_the_claim_of_its_source() -> None:
        assert SOURCES in stage.message("InferenceModel", "early")

    stage.eventually(waits_for_the_claim_of_its_source)
    stage.add_sources()
    stage.put_model("early.onnx", 3.0)
    stage.wait_ready("InferenceModel", "early")
    assert set(stage.served_factors("early").values()) == {3.0}


GOOD = a_model("refused").with_version(1, "pvc://sources/1.onnx")
REFUSED: dict[str, tuple[ModelBuilder, str]] = {
    "version zero": (a_model("refused").with_version(0, "pvc://sources/1.onnx"), "number"),
    "unknown backend": (GOOD.with_spec(backend="Nonsense"), "backend"),
    "name with a slash": (GOOD.named_in_triton("a/b"), "modelName"),
    "leading dot": (GOOD.named_in_triton(".hidden"), "modelName"),
    "other source": (GOOD.with_version(1, "http://sources/1.onnx"), "uri"),
}


@pytest.mark.parametrize("name", REFUSED)
def test_kubectl_refuses_with_the_name_of_the_field(shared: Stage, name: str) -> None:
    model, field = REFUSED[name]
    manifest = json.dumps(model.build())
    done = kubectl("-n", shared.namespace, "apply", "--filename", "-", stdin=manifest, check=False)
    assert done.returncode != 0
    assert field in done.stderr


def test_kubectl_refuses_to_change_what_a_version_means(shared: Stage) -> None:
    patch = json.dumps([{"op": "replace", "path": "/spec/versions/0/source/sha256", "value": "0" * 64}])
    options = ("-n", shared.namespace, "patch", "tmodel/resnet50", "--type=json", "--patch", patch)
    done = kubectl(*options, check=False)
    assert done.returncode != 0
    assert "new version" in done.stderr
