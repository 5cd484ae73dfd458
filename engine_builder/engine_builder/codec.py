"""JSON form of the contract's dataclasses: canonical on writing, strict on reading."""

from __future__ import annotations

import dataclasses
import enum
import json
import types
import typing
from collections.abc import Mapping
from typing import Any, TypeVar

_T = TypeVar("_T")


def to_json(value: Any) -> str:
    """Return the canonical JSON of one of the dataclasses above (sorted keys, no spaces)."""
    return json.dumps(_plain(value), sort_keys=True, separators=(",", ":"), ensure_ascii=False)


def from_json(kind: type[_T], text: str | bytes) -> _T:
    """Read one of the dataclasses above.

    Raises:
        ValueError: the text is not JSON of that form; the message names the field.
    """
    try:
        return typing.cast("_T", _read(kind, json.loads(text), kind.__name__))
    except json.JSONDecodeError as error:
        raise ValueError(f"{kind.__name__}: not JSON: {error}") from error


def _plain(value: Any) -> Any:
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        return {f.name: _plain(getattr(value, f.name)) for f in dataclasses.fields(value)}
    if isinstance(value, Mapping):
        return {str(k): _plain(v) for k, v in value.items()}
    if isinstance(value, list | tuple):
        return [_plain(v) for v in value]
    if isinstance(value, enum.Enum):
        return value.value
    return value


def _read(kind: Any, value: Any, path: str) -> Any:  # noqa: PLR0911 - one for each kind
    origin, args = typing.get_origin(kind), typing.get_args(kind)
    if origin in (typing.Union, types.UnionType):
        return None if value is None else _read(next(a for a in args if a is not type(None)), value, path)
    if dataclasses.is_dataclass(kind):
        return _read_dataclass(kind, value, path)
    if origin is tuple:
        items = _expect(list, value, path)
        return tuple(_read(args[0], v, f"{path}[{i}]") for i, v in enumerate(items))
    if origin is not None and issubclass(origin, Mapping):
        return {k: _read(args[1], v, f"{path}.{k}") for k, v in _expect(dict, value, path).items()}
    if isinstance(kind, type) and issubclass(kind, enum.Enum):
        return kind(value)
    if kind is float:
        return float(_expect((int, float), value, path))
    return _expect(kind, value, path)


def _read_dataclass(kind: Any, value: Any, path: str) -> Any:
    fields = _expect(dict, value, path)
    hints = typing.get_type_hints(kind)
    known = {f.name: f for f in dataclasses.fields(kind)}
    missing = [
        name
        for name, f in known.items()
        if name not in fields
        and f.default is dataclasses.MISSING
        and f.default_factory is dataclasses.MISSING
    ]
    if missing:
        raise ValueError(f"{path}: missing {', '.join(missing)}")
    return kind(**{n: _read(hints[n], v, f"{path}.{n}") for n, v in fields.items() if n in known})


def _expect(kind: Any, value: Any, path: str) -> Any:
    if not isinstance(value, kind) or (isinstance(value, bool) and kind is not bool):
        raise ValueError(f"{path}: {type(value).__name__} is not what belongs here")
    return value
