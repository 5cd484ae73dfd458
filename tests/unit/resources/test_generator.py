"""Properties of the generated CRDs that must hold whatever the models say."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import jsonschema
import pytest
from hack.generate import __main__ as command
from hack.generate import files
from hack.generate.crds import all_crds, crd, schema
from hack.generate.structural import structural

from triton_operator.resources import KINDS, TritonServer

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from triton_operator.resources.common import Resource

Node = tuple[str, dict[str, Any]]
ALTERNATIVES = {"$ref", "$defs", "allOf", "oneOf", "not", "const", "title", "nullable"}


def _nodes(node: dict[str, Any], path: str) -> Iterator[Node]:
    yield path, node
    for name, child in node.get("properties", {}).items():
        yield from _nodes(child, f"{path}.{name}")
    for key in ("items", "additionalProperties"):
        if key in node:
            yield from _nodes(node[key], f"{path}.{key}")


def _all_nodes() -> list[Node]:
    return [node for kind in KINDS for node in _nodes(schema(kind), kind.KIND.kind)]


def _written_by_us(path: str) -> bool:
    return not path.endswith((".apiVersion", ".kind")) or path.count(".") > 1


def test_every_field_is_documented() -> None:
    undocumented = [
        f"{path}.{name}"
        for path, node in _all_nodes()
        for name, child in node.get("properties", {}).items()
        if name != "metadata" and not child.get("description")
    ]
    assert undocumented == []


def test_every_description_is_one_or_more_sentences() -> None:
    ragged = [
        path
        for path, node in _all_nodes()
        if (text := node.get("description"))
        and (text != text.strip() or "  " in text or not text[0].isupper())
    ]
    assert ragged == []


def test_every_string_list_and_map_is_bounded() -> None:
    bounds = {"string": "maxLength", "array": "maxItems"}
    unbounded = [
        path
        for path, node in _all_nodes()
        if _written_by_us(path)
        and "enum" not in node
        and node.get("format") != "date-time"
        and (
            (node.get("type") in bounds and bounds[node["type"]] not in node)
            or ("additionalProperties" in node and "maxProperties" not in node)
        )
    ]
    assert unbounded == []


def test_every_list_says_how_it_is_merged() -> None:
    lists = [(path, node) for path, node in _all_nodes() if node.get("type") == "array"]
    assert [path for path, node in lists if "x-kubernetes-list-type" not in node] == []
    for _, node in lists:
        if node["x-kubernetes-list-type"] == "map":
            assert set(node["x-kubernetes-list-map-keys"]) <= set(node["items"]["required"])


def test_every_rule_says_what_is_wrong() -> None:
    for path, node in _all_nodes():
        for rule in node.get("x-kubernetes-validations", []):
            assert len(rule["message"]) > 20, path
            assert "\n" not in rule["message"], path
            assert rule.get("fieldPath", ".x").startswith("."), path


def test_schemas_are_structural() -> None:
    for path, node in _all_nodes():
        is_quantity = node.get("x-kubernetes-int-or-string", False)
        assert is_quantity or "type" in node, path
        assert is_quantity == ("anyOf" in node), path
        assert not ALTERNATIVES & node.keys(), path


@pytest.mark.parametrize("kind", KINDS, ids=lambda kind: str(kind.KIND.kind))
def test_schemas_are_json_schemas(kind: type[Resource]) -> None:
    jsonschema.Draft202012Validator.check_schema(schema(kind))


def test_an_object_that_may_be_absent_is_not_filled_in() -> None:
    serving = _property("InferenceModel.spec.serving")
    assert "default" not in serving["properties"]["dynamicBatching"]


def test_an_object_whose_fields_have_defaults_is_filled_in() -> None:
    assert _property("InferenceModel.spec.check")["default"] == {}
    assert _property("InferenceModel.spec.versions.items.build")["default"] == {}


def test_status_starts_as_not_observed() -> None:
    for kind in KINDS:
        assert schema(kind)["properties"]["status"]["default"] == {"observedGeneration": -1}


def test_only_a_server_can_be_scaled() -> None:
    scalable = [kind for kind in KINDS if "scale" in crd(kind)["spec"]["versions"][0]["subresources"]]
    assert scalable == [TritonServer]


def test_several_types_for_one_field_are_refused() -> None:
    with pytest.raises(ValueError, match="several types"):
        structural({"anyOf": [{"type": "string"}, {"type": "integer"}]}, {})


def test_generation_is_deterministic() -> None:
    assert files.wanted_files() == files.wanted_files()
    assert len(all_crds()) == len(KINDS)


def test_generated_files_are_current() -> None:
    assert [str(each) for each in files.differences(command.ROOT, files.wanted_files())] == []


def test_differences_are_found_and_written(tmp_path: Path) -> None:
    wanted = files.wanted_files()
    stale = tmp_path / "crds" / "stale.yaml"
    foreign = tmp_path / "crds" / "foreign.yaml"
    stale.parent.mkdir()
    stale.write_text(files.HEADER + "a: 1\n")
    foreign.write_text("a: 1\n")

    found = list(files.differences(tmp_path, wanted))
    for each in found:
        files.write(tmp_path, each)

    assert len(found) == len(wanted) + 1
    assert list(files.differences(tmp_path, wanted)) == []
    assert not stale.exists()
    assert foreign.exists()


def test_check_writes_nothing_and_shows_the_difference(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(command, "ROOT", tmp_path)

    assert command.main(["--check"]) == 1

    assert list(tmp_path.iterdir()) == []
    assert "+kind: CustomResourceDefinition" in capsys.readouterr().out


def _property(path: str) -> dict[str, Any]:
    return next(node for found, node in _all_nodes() if found == path)
