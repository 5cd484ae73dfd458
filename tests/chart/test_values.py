"""values.yaml: every value is documented, checked, and in the README."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from typing import Any

import pytest
import yaml
from tests.chart.helm import CHART, FULL_VALUES, Object, refusal, render

TEXT = (CHART / "values.yaml").read_text()
LINES = TEXT.splitlines()
ROW = re.compile(r"^\| `([\w.]+)` \| `(.*)` \| (.+) \|$", re.MULTILINE)


def test_every_value_is_documented() -> None:
    undocumented = [".".join(path) for path, comment, _ in _keys(_document()) if not comment]
    assert undocumented == []


def test_readme_has_every_value_with_default_and_words() -> None:
    table = {path: (json.loads(default), words) for path, default, words in _rows()}
    wanted = {".".join(path): (value, comment) for path, comment, value in _leaves()}
    assert table == wanted


def test_full_values_set_every_value() -> None:
    full = yaml.safe_load(FULL_VALUES.read_text())
    missing = [path for path, _, default in _leaves() if _at(full, path) is None and default is not None]
    assert missing == []


def test_schema_knows_every_value_and_no_more() -> None:
    schema = json.loads((CHART / "values.schema.json").read_text())
    known = set(schema["properties"]) - {"global"}
    assert known == set(yaml.safe_load(TEXT))
    for node in _objects(schema):
        assert "additionalProperties" in node or "properties" not in node


@pytest.mark.parametrize(
    ("path", "value"),
    [
        ("imgae", {"tag": "1"}),
        ("image.tga", "1"),
        ("engineBuilder.image.repo", "x"),
        ("settings.worker", 2),
        ("serviceAccount.automount", True),
        ("metrics.podMonitor.labls", {}),
        ("rbac.creat", True),
        ("resources.limit", {}),
        ("affinity.nodeAfinity", {}),
    ],
)
def test_unknown_value_is_refused_by_name(path: str, value: Any) -> None:
    message = refusal(_nested(path, value))
    assert f"'{path.rpartition('.')[2]}' not allowed" in message
    assert f"at '{'/' if '.' in path else ''}{'/'.join(path.split('.')[:-1])}'" in message


@pytest.mark.parametrize(
    ("path", "value", "said"),
    [
        ("image.pullPolicy", "Sometimes", "IfNotPresent"),
        ("image.digest", "0123", "sha256"),
        ("settings.workers", 0, "minimum"),
        ("settings.workers", 1.5, "want integer"),
        ("settings.fleetSeconds", 0, "exclusiveMinimum"),
        ("settings.retrySeconds", 0, "exclusiveMinimum"),
        ("settings.logLevel", "info", "INFO"),
        ("watchNamespaces", "vision", "array"),
        ("watchNamespaces", ["Vision"], "pattern"),
        ("imagePullSecrets", ["registry"], "object"),
        ("tritonServers", [{"name": "default"}], "spec"),
        ("tritonServers", [{"name": "a.b", "spec": {}}], "pattern"),
        ("modelRepositories", [{"name": "a" * 51, "spec": {}}], "pattern"),
        ("metrics.podMonitor.interval", "often", "pattern"),
    ],
)
def test_value_that_cannot_work_is_refused(path: str, value: Any, said: str) -> None:
    message = refusal(_nested(path, value))
    assert said in message
    assert f"at '/{path.replace('.', '/')}" in message


def test_chart_works_as_a_dependency() -> None:
    assert render({"global": {"region": "eu"}}).objects


def _document() -> yaml.MappingNode:
    node = yaml.compose(TEXT)
    assert isinstance(node, yaml.MappingNode)
    return node


def _keys(
    node: yaml.MappingNode, above: tuple[str, ...] = ()
) -> Iterator[tuple[tuple[str, ...], str, yaml.Node]]:
    """Yield the path of every key, the comment above it, and its value."""
    for key, value in node.value:
        path = (*above, key.value)
        yield path, _comment_above(key.start_mark.line), value
        if isinstance(value, yaml.MappingNode):
            yield from _keys(value, path)


def _comment_above(line: int) -> str:
    words: list[str] = []
    while line > 0 and LINES[line - 1].lstrip().startswith("# "):
        line -= 1
        words.insert(0, LINES[line].strip().removeprefix("# "))
    return " ".join(words)


def _leaves() -> list[tuple[tuple[str, ...], str, Any]]:
    return [
        (path, comment, yaml.safe_load(yaml.serialize(node)))
        for path, comment, node in _keys(_document())
        if not (isinstance(node, yaml.MappingNode) and node.value)
    ]


def _rows() -> list[tuple[str, str, str]]:
    return ROW.findall((CHART / "README.md").read_text())


def _at(values: Object, path: tuple[str, ...]) -> Any:
    found: Any = values
    for key in path:
        found = found.get(key) if isinstance(found, dict) else None
    return found


def _nested(path: str, value: Any) -> Object:
    first, _, rest = path.partition(".")
    return {first: _nested(rest, value) if rest else value}


def _objects(schema: Any) -> Iterator[Object]:
    if isinstance(schema, dict):
        if schema.get("type") == "object":
            yield schema
        for child in schema.values():
            yield from _objects(child)
