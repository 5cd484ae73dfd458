from __future__ import annotations

import dataclasses
import re
import subprocess
import sys

import pytest
from hypothesis import given
from hypothesis import strategies as st
from tests.builders import a_repository, a_server
from tests.observed import repository, server, sha

from engine_builder.contract import CompileOptions, ProfileInput, Target
from triton_operator.plan import names
from triton_operator.resources.engine import engine_name
from triton_operator.resources.inference_model import Backend

LABEL = re.compile(r"[a-z0-9]([-a-z0-9]{0,61}[a-z0-9])?")
SERVICE = re.compile(r"[a-z]([-a-z0-9]{0,61}[a-z0-9])?")
LABEL_VALUE = re.compile(r"([A-Za-z0-9]([-A-Za-z0-9_.]{0,61}[A-Za-z0-9])?)?")

object_names = st.from_regex(r"[a-z0-9]([-a-z0-9]{0,48}[a-z0-9])?", fullmatch=True)
service_names = st.from_regex(r"[a-z]([-a-z0-9]{0,56}[a-z0-9])?", fullmatch=True)
attempts = st.integers(min_value=1, max_value=10**9)


@given(object_names, st.none() | service_names)
def test_children_of_a_server_have_names_that_services_and_pods_can_have(
    name: str, service: str | None
) -> None:
    builder = a_server(name)
    found = server(builder.with_spec(service={"name": service}) if service else builder)
    assert SERVICE.fullmatch(found.service_name)
    assert SERVICE.fullmatch(found.headless_service_name)
    assert LABEL.fullmatch(names.deployment_of_server(name))
    assert all(LABEL_VALUE.fullmatch(value) for value in names.labels("triton", server=name).values())


@given(object_names)
def test_children_of_a_repository_have_valid_names(name: str) -> None:
    assert LABEL.fullmatch(names.deployment_of_keeper(name))
    assert LABEL.fullmatch(repository(a_repository(name)).claim_name)
    assert all(LABEL_VALUE.fullmatch(value) for value in names.labels("keeper", repository=name).values())


@given(st.binary(), attempts)
def test_jobs_have_names_that_fit_into_their_pods_labels(key: bytes, attempt: int) -> None:
    engine = engine_name(Backend.ONNX_RUNTIME, sha(repr(key)))
    resolve = names.resolve_name(model_uid="u", number=attempt, uri=repr(key))
    for base in (engine, resolve):
        assert LABEL.fullmatch(names.job_name(base, attempt))
        assert LABEL_VALUE.fullmatch(base)


@given(object_names, st.binary(min_size=32, max_size=32), st.binary(min_size=32, max_size=32))
def test_a_secrets_name_tells_keys_apart_and_nothing_of_the_key(name: str, key: bytes, other: bytes) -> None:
    found = names.secret(names.deployment_of_server(name), key)
    assert len(found) <= 253
    assert (found == names.secret(names.deployment_of_server(name), other)) == (key == other)
    assert key.hex()[:8] not in found.rsplit("-", 1)[1] or key == other


def test_an_engines_key_holds_all_that_its_bytes_depend_on() -> None:
    base = {"backend": "ONNXRuntime", "sha256": sha("a"), "build": {}, "repository_uid": "r"}
    changes = [{"backend": "OpenVINO"}, {"sha256": sha("b")}, {"build": {"x": 1}}, {"repository_uid": "s"}]
    keys = [names.prepared_engine_key(**(base | change)) for change in [{}, *changes]]  # type: ignore[arg-type]
    assert len(set(keys)) == len(keys)
    assert names.prepared_engine_key(**base) == keys[0]  # type: ignore[arg-type]


TARGET = Target("NVIDIA-A10", "8.6", 23028)


def a_compiled_key(
    options: CompileOptions | None = None,
    *,
    prepared: str = "k",
    target: Target = TARGET,
    release: str = "26.07",
) -> str:
    return names.compiled_engine_key(
        prepared_key=names.EngineKey(prepared),
        target=target,
        release=release,
        options=options or CompileOptions(max_batch_size=16),
    )


def test_a_compiled_engines_key_holds_target_release_and_what_it_is_made_from() -> None:
    keys = [
        a_compiled_key(),
        a_compiled_key(prepared="other"),
        a_compiled_key(release="26.08"),
        *(
            a_compiled_key(target=dataclasses.replace(TARGET, **{field: value}))
            for field, value in (("product", "NVIDIA-L4"), ("compute_capability", "8.9"), ("memory_mib", 1))
        ),
        names.prepared_engine_key(backend="ONNXRuntime", sha256="k", build={}, repository_uid="r"),
    ]
    assert len(set(keys)) == len(keys)
    assert all(re.fullmatch(r"[0-9a-f]{64}", key) for key in keys)


shapes = st.lists(st.integers(0, 64), min_size=1, max_size=4).map(tuple)
profile_inputs = st.builds(ProfileInput, st.sampled_from("abc"), shapes, shapes, shapes)
profiles = st.lists(profile_inputs, min_size=1, max_size=3, unique_by=lambda each: each.name).map(tuple)
options = st.builds(
    CompileOptions,
    max_batch_size=st.integers(1, 64),
    profiles=st.lists(profiles, max_size=2).map(tuple),
    workspace_percent=st.integers(1, 100),
    optimization_level=st.integers(0, 5),
    portability=st.sampled_from(["Exact", "SameComputeCapability", "AmperePlus"]),
    precision=st.sampled_from(["FP32", "TF32", "FP16"]),
)


def as_meant(found: CompileOptions) -> CompileOptions:
    ordered = tuple(tuple(sorted(profile, key=lambda each: each.name)) for profile in found.profiles)
    return dataclasses.replace(found, profiles=ordered)


@given(options, options)
def test_compiled_engines_have_one_key_exactly_if_their_options_mean_the_same(
    one: CompileOptions, other: CompileOptions
) -> None:
    assert (a_compiled_key(one) == a_compiled_key(other)) == (as_meant(one) == as_meant(other))


@given(options, st.data())
def test_every_option_is_in_the_key_and_the_order_of_inputs_is_not(
    found: CompileOptions, data: st.DataObject
) -> None:
    shuffled = tuple(tuple(data.draw(st.permutations(profile))) for profile in found.profiles)
    assert a_compiled_key(found) == a_compiled_key(dataclasses.replace(found, profiles=shuffled))
    for field in dataclasses.fields(CompileOptions):
        other = data.draw(
            options.filter(lambda each, name=field.name: getattr(each, name) != getattr(found, name))
        )  # type: ignore[misc]
        changed = dataclasses.replace(found, **{field.name: getattr(other, field.name)})
        if as_meant(changed) != as_meant(found):
            assert a_compiled_key(changed) != a_compiled_key(found)


def test_the_key_of_a_compiled_engine_stays_what_it_is() -> None:
    # another key builds every engine again, on GPUs that serve
    assert a_compiled_key()[:16] == "0c2f7de49ae70c21"


@pytest.mark.parametrize("seed", ["0", "1"])
def test_digests_are_the_same_in_every_process(seed: str) -> None:
    code = (
        "from triton_operator.plan import names;"
        "print(names.digest('content', 'x', {'b': 1, 'a': {'z': [1, 2], 'y': None}}))"
    )
    found = subprocess.run(
        [sys.executable, "-c", code], env={"PYTHONHASHSEED": seed}, capture_output=True, text=True, check=True
    )
    assert found.stdout.strip() == names.digest("content", "x", {"a": {"y": None, "z": [1, 2]}, "b": 1})
