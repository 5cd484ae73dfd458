from __future__ import annotations

import datetime as dt
import types
from typing import TYPE_CHECKING, Any

import pytest
from kubernetes.aio.config import incluster_config
from tests.integration.controllers import make_account

from triton_operator.clients import kube as module
from triton_operator.clients.kube import (
    DEPLOYMENT,
    FIELD_MANAGER,
    INFERENCE_MODEL,
    NAMESPACE,
    NODE,
    SECRET,
    SERVICE,
    TRITON_SERVER,
    AlreadyExists,
    Conflict,
    Forbidden,
    Invalid,
    Kind,
    Kube,
    NotFound,
    Unavailable,
)

if TYPE_CHECKING:
    from pathlib import Path

    from tests.integration.apiserver import ApiServer
    from tests.integration.clients.conftest import Line

CONFIG_MAP = Kind("v1", "ConfigMap", "configmaps")


def a_config_map(namespace: str, name: str = "settings", **metadata: Any) -> dict[str, Any]:
    return {"metadata": {"namespace": namespace, "name": name, **metadata}, "data": {"a": "1"}}


def a_model(namespace: str, name: str = "det") -> dict[str, Any]:
    source = {"uri": "pvc://models/det.onnx"}
    spec = {"backend": "ONNXRuntime", "versions": [{"number": 1, "source": source}]}
    return {"metadata": {"namespace": namespace, "name": name}, "spec": spec}


def a_deployment(namespace: str, *env: str) -> dict[str, Any]:
    container = {"name": "triton", "image": "triton", "env": [{"name": name, "value": "1"} for name in env]}
    labels = {"app": "triton"}
    return {
        "metadata": {"namespace": namespace, "name": "triton-default", "labels": labels},
        "spec": {
            "selector": {"matchLabels": labels},
            "template": {"metadata": {"labels": labels}, "spec": {"containers": [container]}},
        },
    }


async def test_get_answers_none_for_what_is_not_there(kube: Kube, namespace: str) -> None:
    assert await kube.get(CONFIG_MAP, namespace, "missing") is None
    found = await kube.get(NAMESPACE, "", namespace)
    assert found
    assert (found["kind"], found["metadata"]["name"]) == ("Namespace", namespace)


async def test_list_selects_by_label_and_fills_in_the_kind(kube: Kube, namespace: str) -> None:
    for name, color in (("a", "red"), ("b", "blue")):
        await kube.create(CONFIG_MAP, a_config_map(namespace, name, labels={"color": color}))
    (found,) = await kube.list(CONFIG_MAP, namespace=namespace, labels="color=blue")
    assert (found["apiVersion"], found["kind"], found["metadata"]["name"]) == ("v1", "ConfigMap", "b")
    everywhere = await kube.list(CONFIG_MAP, labels="color in (red,blue)")
    assert {"a", "b"} <= {item["metadata"]["name"] for item in everywhere}


async def test_list_reads_every_page(kube: Kube, namespace: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "PAGE_SIZE", 2)
    for n in range(5):
        await kube.create(CONFIG_MAP, a_config_map(namespace, f"page-{n}", labels={"paged": "yes"}))
    assert len(await kube.list(CONFIG_MAP, namespace=namespace, labels="paged=yes")) == 5


async def test_create_never_touches_an_object_of_that_name(kube: Kube, namespace: str) -> None:
    await kube.create(CONFIG_MAP, a_config_map(namespace))
    with pytest.raises(AlreadyExists) as raised:
        await kube.create(CONFIG_MAP, {**a_config_map(namespace), "data": {"a": "2"}})
    assert raised.value.status == 409
    assert "settings" in raised.value.message
    found = await kube.get(CONFIG_MAP, namespace, "settings")
    assert found
    assert found["data"] == {"a": "1"}


async def test_apply_without_a_uid_is_refused_before_it_is_sent(kube: Kube, namespace: str) -> None:
    with pytest.raises(ValueError, match=r"metadata\.uid"):
        await kube.apply(CONFIG_MAP, a_config_map(namespace))


@pytest.mark.parametrize("exists", [True, False])
async def test_apply_refuses_a_foreign_object_and_creates_none(
    kube: Kube, namespace: str, *, exists: bool
) -> None:
    if exists:
        await kube.create(CONFIG_MAP, a_config_map(namespace))
    uid = "11111111-1111-1111-1111-111111111111"
    with pytest.raises(Conflict):
        await kube.apply(CONFIG_MAP, {**a_config_map(namespace, uid=uid), "data": {"a": "2"}})
    found = await kube.get(CONFIG_MAP, namespace, "settings")
    assert (found["data"] if found else None) == ({"a": "1"} if exists else None)


async def test_apply_removes_what_creation_set_and_is_not_wanted_any_more(kube: Kube, namespace: str) -> None:
    created = await kube.create(DEPLOYMENT, a_deployment(namespace, "OLD", "KEPT"))
    body = a_deployment(namespace, "KEPT", "NEW")
    body["metadata"]["uid"] = created["metadata"]["uid"]
    for _ in range(2):
        applied = await kube.apply(DEPLOYMENT, body)
        env = applied["spec"]["template"]["spec"]["containers"][0]["env"]
        assert [each["name"] for each in env] == ["KEPT", "NEW"]
    entries = applied["metadata"]["managedFields"]
    ours = [(e["manager"], e["operation"]) for e in entries if e["manager"] == FIELD_MANAGER]
    assert ours == [(FIELD_MANAGER, "Apply")]  # the Deployment's controller may have written its status


async def test_apply_leaves_fields_of_others_alone(kube: Kube, namespace: str, api_server: ApiServer) -> None:
    created = await kube.create(DEPLOYMENT, a_deployment(namespace, "OURS"))
    api_server.kubectl("annotate", "deployment", "-n", namespace, "triton-default", "team=vision")
    body = a_deployment(namespace, "OURS")
    body["metadata"]["uid"] = created["metadata"]["uid"]
    applied = await kube.apply(DEPLOYMENT, body)
    assert applied["metadata"]["annotations"]["team"] == "vision"


async def test_apply_puts_back_what_was_edited_by_hand(
    kube: Kube, namespace: str, api_server: ApiServer
) -> None:
    created = await kube.create(DEPLOYMENT, a_deployment(namespace, "OURS"))
    edited = api_server.kubectl("set", "image", "-n", namespace, "deployment/triton-default", "triton=evil")
    assert edited.returncode == 0, edited.stderr
    body = a_deployment(namespace, "OURS")
    body["metadata"]["uid"] = created["metadata"]["uid"]
    applied = await kube.apply(DEPLOYMENT, body)
    assert applied["spec"]["template"]["spec"]["containers"][0]["image"] == "triton"


async def test_status_is_replaced_whole(kube: Kube, namespace: str) -> None:
    model = await kube.create(INFERENCE_MODEL, a_model(namespace))
    uid = model["metadata"]["uid"]
    ready = {
        "type": "Ready",
        "status": "True",
        "reason": "Served",
        "message": "",
        "lastTransitionTime": "2026-01-01T00:00:00Z",
        "observedGeneration": 1,
    }
    versions = [{"number": n, "state": "Promoted"} for n in (1, 2)]
    first = {"observedGeneration": 1, "conditions": [ready], "versions": versions}
    await kube.apply_status(INFERENCE_MODEL, namespace, "det", first, uid=uid)
    second = {"observedGeneration": 2, "versions": versions[1:]}
    await kube.apply_status(INFERENCE_MODEL, namespace, "det", second, uid=uid)
    found = await kube.get(INFERENCE_MODEL, namespace, "det")
    assert found
    assert found["status"] == second
    assert found["spec"]["versions"] == model["spec"]["versions"]


async def test_same_status_again_is_no_write(kube: Kube, namespace: str) -> None:
    model = await kube.create(INFERENCE_MODEL, a_model(namespace))
    uid = model["metadata"]["uid"]
    once = await kube.apply_status(INFERENCE_MODEL, namespace, "det", {"observedGeneration": 1}, uid=uid)
    again = await kube.apply_status(INFERENCE_MODEL, namespace, "det", {"observedGeneration": 1}, uid=uid)
    assert once["metadata"]["resourceVersion"] == again["metadata"]["resourceVersion"]


async def test_status_of_a_replaced_or_missing_object_is_refused(kube: Kube, namespace: str) -> None:
    old = await kube.create(INFERENCE_MODEL, a_model(namespace))
    uid = old["metadata"]["uid"]
    await kube.delete(INFERENCE_MODEL, namespace, "det", uid=uid)
    with pytest.raises(NotFound):
        await kube.apply_status(INFERENCE_MODEL, namespace, "det", {"observedGeneration": 1}, uid=uid)
    await kube.create(INFERENCE_MODEL, a_model(namespace))
    with pytest.raises(Conflict, match="replaced by another"):
        await kube.apply_status(INFERENCE_MODEL, namespace, "det", {"observedGeneration": 1}, uid=uid)


async def test_one_label_is_set_and_the_others_stay(kube: Kube, namespace: str) -> None:
    body = a_model(namespace)
    body["metadata"]["labels"] = {"team": "vision"}
    uid = (await kube.create(INFERENCE_MODEL, body))["metadata"]["uid"]
    for value in ("true", "false"):
        labelled = await kube.set_label(INFERENCE_MODEL, namespace, "det", "example.com/on", value, uid=uid)
        assert labelled["metadata"]["labels"] == {"team": "vision", "example.com/on": value}


async def test_a_replaced_or_missing_object_is_not_labelled(kube: Kube, namespace: str) -> None:
    for name in ("det", "missing"):
        body = a_model(namespace)
        body["metadata"]["labels"] = {"team": "vision"}
        if name == "det":
            await kube.create(INFERENCE_MODEL, body)
        with pytest.raises(Conflict):
            await kube.set_label(INFERENCE_MODEL, namespace, name, "example.com/on", "true", uid="another")


async def test_replicas_change_together_with_the_annotation_that_says_why(kube: Kube, namespace: str) -> None:
    metadata = {"name": "a10", "namespace": namespace, "annotations": {"kept": "1"}}
    body = {"metadata": metadata, "spec": {"image": "triton:24.10", "replicas": 2}}
    uid = (await kube.create(TRITON_SERVER, body))["metadata"]["uid"]
    for replicas, why, expected in (
        (1, "a build", {"kept": "1", "example.com/why": "a build"}),
        (2, None, {"kept": "1"}),
    ):
        scaled = await kube.scale(
            TRITON_SERVER, namespace, "a10", replicas, annotation=("example.com/why", why), uid=uid
        )
        assert (scaled["spec"]["replicas"], scaled["metadata"]["annotations"]) == (replicas, expected)
    for name, known in (("a10", "another"), ("missing", uid), ("a10", uid)):  # the last has no annotation now
        with pytest.raises(Conflict):
            await kube.scale(
                TRITON_SERVER, namespace, name, 1, annotation=("example.com/why", None), uid=known
            )
    found = await kube.get(TRITON_SERVER, namespace, "a10")
    assert found is not None
    assert found["spec"]["replicas"] == 2


async def test_status_that_the_schema_refuses_is_invalid(kube: Kube, namespace: str) -> None:
    model = await kube.create(INFERENCE_MODEL, a_model(namespace))
    bad = {"observedGeneration": "one"}
    with pytest.raises(Invalid, match="observedGeneration"):
        await kube.apply_status(INFERENCE_MODEL, namespace, "det", bad, uid=model["metadata"]["uid"])


async def test_delete_takes_the_object_that_is_meant_and_no_other(kube: Kube, namespace: str) -> None:
    created = await kube.create(CONFIG_MAP, a_config_map(namespace))
    with pytest.raises(Conflict):
        await kube.delete(CONFIG_MAP, namespace, "settings", uid="11111111-1111-1111-1111-111111111111")
    assert await kube.get(CONFIG_MAP, namespace, "settings")
    uid = created["metadata"]["uid"]
    await kube.delete(CONFIG_MAP, namespace, "settings", uid=uid)
    assert await kube.get(CONFIG_MAP, namespace, "settings") is None
    await kube.delete(CONFIG_MAP, namespace, "settings", uid=uid)


async def test_replace_refuses_what_changed_meanwhile(kube: Kube, namespace: str) -> None:
    created = await kube.create(CONFIG_MAP, a_config_map(namespace))
    await kube.replace(CONFIG_MAP, {**created, "data": {"a": "2"}})
    with pytest.raises(Conflict):
        await kube.replace(CONFIG_MAP, {**created, "data": {"a": "3"}})


async def test_content_that_is_refused_names_the_field(kube: Kube, namespace: str) -> None:
    with pytest.raises(Invalid, match="backend"):
        await kube.create(
            INFERENCE_MODEL,
            {**a_model(namespace), "spec": {**a_model(namespace)["spec"], "backend": "Magic"}},
        )


async def test_refusal_of_a_secret_never_quotes_it(kube: Kube, namespace: str) -> None:
    metadata = {"namespace": namespace, "name": "key"}
    for value in ("hunter2", ["hunter2"]):
        with pytest.raises(Invalid) as raised:
            await kube.create(SECRET, {"metadata": metadata, "data": {"key": value}})
        assert "hunter2" not in str(raised.value)


async def test_kind_without_a_definition_is_not_found(kube: Kube, namespace: str) -> None:
    unknown = Kind("triton-operator.io/v1alpha1", "Unknown", "unknowns")
    with pytest.raises(NotFound):
        await kube.list(unknown, namespace=namespace)


async def test_every_write_is_counted_and_no_read(
    counted: Kube, writes: list[tuple[str, str]], namespace: str
) -> None:
    created = await counted.create(CONFIG_MAP, a_config_map(namespace))
    uid = created["metadata"]["uid"]
    await counted.get(CONFIG_MAP, namespace, "settings")
    await counted.list(CONFIG_MAP, namespace=namespace)
    for _ in range(2):
        await counted.apply(CONFIG_MAP, a_config_map(namespace, uid=uid))
    with pytest.raises(AlreadyExists):
        await counted.create(CONFIG_MAP, a_config_map(namespace))
    await counted.delete(CONFIG_MAP, namespace, "settings", uid=uid)
    verbs = ["create", "claim", "apply", "apply", "delete"]
    assert writes == [(verb, "ConfigMap") for verb in verbs]


async def test_cut_line_is_unavailable_and_works_again_when_mended(
    far_kube: Kube, line: Line, namespace: str
) -> None:
    await far_kube.list(SERVICE, namespace=namespace)
    await line.cut()
    with pytest.raises(Unavailable):
        await far_kube.list(SERVICE, namespace=namespace)
    await line.mend()
    assert await far_kube.list(SERVICE, namespace=namespace) == []


async def test_server_that_does_not_answer_is_given_up(
    kube: Kube, namespace: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "REQUEST_SECONDS", 0.0001)
    with pytest.raises(Unavailable) as raised:
        await kube.list(SERVICE, namespace=namespace)
    assert raised.value.reason == "Timeout"


async def test_missing_kubeconfig_is_said_plainly(tmp_path: Path) -> None:
    with pytest.raises(Unavailable, match="kubeconfig"):
        await Kube.connect(kubeconfig=str(tmp_path / "missing"))


async def test_pod_reads_its_token_again_when_it_was_renewed(
    api_server: ApiServer, namespace: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    token, clock = tmp_path / "token", [dt.datetime(2026, 1, 1)]  # noqa: DTZ001 - what the library compares
    token.write_text("expired")
    host, _, port = api_server.url.removeprefix("https://").rpartition(":")
    monkeypatch.setenv("KUBERNETES_SERVICE_HOST", host)
    monkeypatch.setenv("KUBERNETES_SERVICE_PORT", port)
    monkeypatch.setattr(module, "_TOKEN", token)
    monkeypatch.setattr(incluster_config, "SERVICE_TOKEN_FILENAME", str(token))
    monkeypatch.setattr(incluster_config, "SERVICE_CERT_FILENAME", str(api_server.certificate))
    now = types.SimpleNamespace(now=lambda: clock[0])
    monkeypatch.setattr(
        incluster_config, "datetime", types.SimpleNamespace(datetime=now, timedelta=dt.timedelta)
    )
    async with await Kube.connect() as kube:
        with pytest.raises((Unavailable, Forbidden)):
            await kube.list(SERVICE, namespace=namespace)
        token.write_text(api_server.token)
        clock[0] += dt.timedelta(minutes=2)
        assert await kube.list(SERVICE, namespace=namespace) == []


async def test_rights_are_told_before_they_are_needed(
    api_server: ApiServer, kube: Kube, namespace: str, tmp_path: Path
) -> None:
    assert await kube.may("list", NODE)
    nobody = make_account(
        api_server, "nobody", namespace=namespace, directory=tmp_path, role="system:basic-user"
    )
    async with await Kube.connect(kubeconfig=str(nobody.kubeconfig)) as limited:
        assert not await limited.may("list", NODE)
        assert not await limited.may("create", DEPLOYMENT)


async def test_a_list_keeps_of_each_object_what_it_is_told_to(kube: Kube, namespace: str) -> None:
    for name in ("one", "two"):
        await kube.create(CONFIG_MAP, a_config_map(namespace, name))

    def cut(obj: dict[str, Any]) -> dict[str, Any]:
        return {"name": obj["metadata"]["name"], "kind": obj["kind"]}

    found = await kube.list(CONFIG_MAP, namespace=namespace, keep=cut)
    ours = [each for each in found if each["name"] in ("one", "two")]
    assert ours == [{"name": "one", "kind": "ConfigMap"}, {"name": "two", "kind": "ConfigMap"}]
