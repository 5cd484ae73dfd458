from __future__ import annotations

import datetime
from typing import Any

from hypothesis import given
from hypothesis import strategies as st
from tests.builders import a_model
from tests.observed import NOW, REPOSITORY_UID, an_engine, at, engine_of, model, sha

from triton_operator.plan import usage
from triton_operator.plan.usage import GRACE_SECONDS, Usage
from triton_operator.plan.versions import Sites
from triton_operator.resources.engine import Engine

USER = model(a_model("detector").with_version(1, "pvc://s/1.onnx", sha256=sha("1")))
ENGINE = engine_of(USER, 1)


def of(
    *models: Any, status: dict[str, Any] | None = None, retention: float | None = 3600, now: float = 0
) -> Usage:
    return usage.of(
        Engine.parse(an_engine(ENGINE, status=status)),
        models,
        sites=Sites(REPOSITORY_UID),
        retention_seconds=retention,
        now=NOW + datetime.timedelta(seconds=now),
    )


def test_users_are_named_with_their_version() -> None:
    second = model(a_model("another").with_version(7, "pvc://s/copy.onnx", sha256=sha("1")))
    assert of(USER, second) == Usage(used_by=("another/7", "detector/1"))


def test_an_engine_that_is_used_again_never_expires() -> None:
    assert of(USER, status={"unusedSince": at(-1e6)}) == Usage(used_by=("detector/1",))


def test_other_content_or_another_repository_is_no_use() -> None:
    other = model(a_model("other").with_version(1, "pvc://s/1.onnx", sha256=sha("2")))
    assert of(other).used_by == ()
    assert engine_of(USER, 1, repository_uid="another").name != ENGINE.name


def test_a_version_without_a_digest_uses_nothing_yet() -> None:
    assert of(model(a_model().with_version(1, "pvc://s/1.onnx"))).used_by == ()


def test_the_time_of_grace_begins_with_the_first_look() -> None:
    found = of(now=0.7)
    assert found.unused_since == NOW
    assert found.expires_in == 3600 - 0.7


def test_without_a_repository_an_engine_is_kept() -> None:
    found = of(status={"unusedSince": at(-1e9)}, retention=None)
    assert found.expires_in is None
    assert found.unused_since is not None


@given(st.floats(0, 1e6), st.floats(0, 1e6))
def test_an_unused_engine_expires_after_its_retention_and_never_at_once(retention: float, age: float) -> None:
    found = of(status={"unusedSince": at(0)}, retention=retention, now=age)
    assert found.expires_in is not None
    assert (found.expires_in <= 0) == (age >= max(retention, GRACE_SECONDS)) or abs(found.expires_in) < 1e-3
    assert found.unused_since == NOW


def test_the_list_of_users_fits_into_the_status() -> None:
    crowd = [model(a_model(f"m{n}").with_version(1, "pvc://s/1.onnx", sha256=sha("1"))) for n in range(5)]
    assert len(of(*crowd).used_by) == 5 <= usage.MOST_LISTED
