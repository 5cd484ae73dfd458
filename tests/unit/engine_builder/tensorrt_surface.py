"""A TensorRT module made of nothing but a recorded API surface.

`tests/unit/tensorrt_api/<version>.json` hold what the Python bindings of that version have: classes with
their members, signatures as the bindings print them, enums with their integers (those that building needs).
The module made here has that and nothing more: an attribute, argument or flag that the version lacks
raises, as it would there. It computes nothing: what a call returns follows from its signature, or from
`ANSWERS`.
"""

from __future__ import annotations

import enum
import inspect
import json
import re
import struct
import types
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

FOLDER = Path(__file__).parents[1] / "tensorrt_api"
VERSIONS = ("10.3.0", "10.9.0", "10.16.1", "11.4.0", "rtx-1.7.1")
_SIGNATURE = re.compile(r"\w+\((?P<arguments>.*)\)(?: -> (?P<returns>[\w.\[\]:]+))?$")
_ARGUMENT = re.compile(r"(?P<name>\w+): (?P<kind>[\w.\[\]:]+)(?: = (?P<default>[^,]+))?")
_UNTYPED = "*args, **kwargs"
_INTEGERS = {"int", "typing.SupportsInt", "SupportsInt"}
_SHAPES = {"Dims", "List[int]", "list[int]", "collections.abc.Sequence[typing.SupportsInt]"}


class Surface:
    """The module of one version, and every call and assignment that it saw."""

    def __init__(self, version: str) -> None:
        recorded = json.loads((FOLDER / f"{version}.json").read_text())
        self.calls: list[tuple[str, Any]] = []
        self.numbers = [int(n) for n in re.findall(r"\d+", recorded["__version__"])]
        self.classes: dict[str, Any] = {}
        for name, told in recorded["classes"].items():
            self.classes[name] = _enum(name, told) if "enum" in told else self._class(name, told)
        self.module = types.SimpleNamespace(__version__=recorded["__version__"], **self.classes)

    def called(self, name: str) -> list[Any]:
        """Return the arguments of every call of `Class.member`, oldest first."""
        return [arguments for called, arguments in self.calls if called == name]

    def plan(self) -> bytes:
        """Return the bytes of a plan of this version: a header that is right, and nothing behind it."""
        rtx = hasattr(self.module.IBuilderConfig, "set_compute_capability")
        version = [*self.numbers, 0, 0][:4]
        header = struct.pack("<4sIQQ4B", b"vtrt" if rtx else b"ftrt", 0, 2, 128, *version)
        return header.ljust(128, b"\0")

    def make(self, name: str) -> Any:
        """Return an object as the module itself makes them, whether or not a user could."""
        made = object.__new__(self.classes[name])
        object.__setattr__(made, "_ready", True)
        return made

    def _class(self, name: str, told: Mapping[str, Any]) -> type:
        signatures = told.get("sig", {})
        body: dict[str, Any] = {
            "__init__": self._initialiser(name, told.get("init")),
            "__setattr__": _set,
            "_recorded": name,
        }
        for member in told["dir"]:
            body[member] = self._member(name, member, signatures.get(member))
        return type(name, (), body)

    def _initialiser(self, name: str, text: str | None) -> Callable[..., None]:
        def initialise(this: Any, *args: Any, **kwargs: Any) -> None:
            if text is None:
                raise TypeError(f"{name}: No constructor defined!")
            self._bind(name, text, this, args, kwargs)
            object.__setattr__(this, "_ready", True)

        return initialise

    def _member(self, name: str, member: str, text: str | None) -> Any:
        if text == "property":
            return property(
                lambda this: self._get(name, member, this), lambda this, value: self._set(name, member, value)
            )
        if text is None or "(" not in text:
            return f"{name}.{member}"  # a constant of the class

        def method(this: Any, *args: Any, **kwargs: Any) -> Any:
            given, returns = self._bind(name, text, this, args, kwargs)
            self.calls.append((f"{name}.{member}", given))
            answer = ANSWERS.get(f"{name}.{member}")
            return answer(self, this, *given) if answer else self._default(f"{name}.{member}", returns)

        return method

    def _bind(
        self, name: str, text: str, this: Any, args: tuple[Any, ...], kwargs: dict[str, Any]
    ) -> tuple[tuple[Any, ...], str]:
        found = _SIGNATURE.match(text)
        assert found, text
        if found["arguments"] == _UNTYPED:
            return args, ""
        parameters, kinds = [], {}
        for argument in _ARGUMENT.finditer(found["arguments"]):
            default = inspect.Parameter.empty if argument["default"] is None else argument["default"]
            kinds[argument["name"]] = argument["kind"]
            parameters.append(
                inspect.Parameter(argument["name"], inspect.Parameter.POSITIONAL_OR_KEYWORD, default=default)
            )
        bound = inspect.Signature(parameters).bind(this, *args, **kwargs)
        for given, value in list(bound.arguments.items())[1:]:
            self._check(f"{name}: {text}", kinds[given], value)
        return bound.args[1:], found["returns"] or "None"

    def _check(self, where: str, kind: str, value: Any) -> None:
        wanted = self.classes.get(kind)
        if wanted is not None and not isinstance(value, wanted):
            raise TypeError(f"{where}: {value!r} is no {kind}")
        if kind in _INTEGERS and not isinstance(value, int):
            raise TypeError(f"{where}: {value!r} is no integer")
        if kind in _SHAPES and not all(isinstance(size, int) for size in value):
            raise TypeError(f"{where}: {value!r} is no shape")
        if hasattr(value, "_recorded") and not getattr(value, "_ready", False):
            raise TypeError(f"{where}: __init__ of the base class was not called")

    def _default(self, called: str, returns: str) -> Any:
        if returns in self.classes:
            return self.make(returns)
        simple = {"None": None, "bool": True, "int": 0, "str": ""}
        if returns not in simple:
            raise AssertionError(f"no answer is known for {called} -> {returns}")
        return simple[returns]

    def _get(self, name: str, member: str, this: Any) -> Any:
        if f"{name}.{member}" not in ANSWERS:
            raise AssertionError(f"no value is known for {name}.{member}")
        return ANSWERS[f"{name}.{member}"](self, this)

    def _set(self, name: str, member: str, value: Any) -> None:
        self.calls.append((f"{name}.{member}", value))


def _set(this: Any, name: str, value: Any) -> None:
    """Assign what the class has; a class that a user derives has more."""
    if type(this).__dict__.get("_recorded") and not isinstance(getattr(type(this), name, None), property):
        raise AttributeError(f"{type(this).__name__} has no {name!r} to assign")
    object.__setattr__(this, name, value)


def _enum(name: str, told: Mapping[str, Any]) -> Any:
    """Return an enum whose members become integers when asked, and are none otherwise."""

    class Member(enum.Enum):
        def __int__(self) -> int:
            return int(self.value)

    return Member(name, told["enum"])


class HostMemory(bytes):
    """What the module returns for memory of its own."""

    __slots__ = ()


def _tensor(surface: Surface, name: str) -> Any:
    made = surface.make("ITensor")
    object.__setattr__(made, "called", name)
    return made


def _stream(surface: Surface, _builder: Any, _network: Any, _config: Any, writer: Any) -> bool:
    _drive_monitor(surface)
    plan = surface.plan()
    return all(writer.write(piece) == len(piece) for piece in (plan[:50], plan[50:]))


def _serialized(surface: Surface, *_: Any) -> HostMemory:
    _drive_monitor(surface)
    return HostMemory(surface.plan())


def _drive_monitor(surface: Surface) -> None:
    (monitor,) = surface.called("IBuilderConfig.progress_monitor")
    monitor.phase_start("Building engine", None, 2)
    assert monitor.step_complete("Building engine", 0) is True
    monitor.phase_finish("Building engine")


ANSWERS: dict[str, Callable[..., Any]] = {
    "Builder.build_serialized_network": _serialized,
    "Builder.build_serialized_network_to_stream": _stream,
    "OnnxParser.num_errors": lambda *_: 0,
    "INetworkDefinition.num_inputs": lambda *_: 1,
    "INetworkDefinition.num_outputs": lambda *_: 1,
    "INetworkDefinition.num_layers": lambda *_: 1,
    "INetworkDefinition.get_input": lambda surface, *_: _tensor(surface, "x"),
    "INetworkDefinition.get_output": lambda surface, *_: _tensor(surface, "y"),
    "ITensor.name": lambda _surface, this: this.called,
    "ITensor.dtype": lambda surface, _this: surface.module.DataType.FLOAT,
    "ITensor.is_shape_tensor": lambda *_: False,
    "ITimingCache.serialize": lambda *_: HostMemory(b"timings"),
    "Runtime.deserialize_cuda_engine": lambda surface, *_: surface.make("ICudaEngine"),
    "ICudaEngine.device_memory_size_v2": lambda *_: 4096,
    "EngineInspector.get_engine_information": lambda *_: json.dumps(
        {"Layers": [{"LayerType": "gemm"}, {"LayerType": "gemm"}, {"LayerType": "Reformat"}]}
    ),
}
"""What calls return and properties hold, where their signature does not say enough."""
