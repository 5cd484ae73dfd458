"""Triton's explicit mode as a small state machine in memory, with the calls that convergers make."""

from __future__ import annotations

import asyncio
from collections.abc import Set as AbstractSet

from google.protobuf import text_format
from tritonclient.grpc import model_config_pb2

from engine_builder.contract import CONFIG_PARAMETER
from triton_operator.clients.triton import ModelVersion, TritonRefused, TritonTimeout, TritonUnreachable
from triton_operator.plan.converge import DesiredModel


def desired(fingerprint: str, *versions: int, name: str = "model") -> DesiredModel:
    """Return what a tree has of a model: a config.pbtxt of this fingerprint and these versions."""
    config = model_config_pb2.ModelConfig(name=name, backend="onnxruntime")
    config.version_policy.specific.versions.extend(versions)
    config.parameters[CONFIG_PARAMETER].string_value = fingerprint
    text = text_format.MessageToString(config)
    return DesiredModel(config=text, fingerprint=fingerprint, versions=frozenset(versions))


class TritonMachine:
    """One pod's Triton. A version is LOADING or UNLOADING until the next `tick`.

    `broken` versions refuse to load, `absent` ones are not on the volume; with `idle` a load
    answers and does nothing, as Triton does when it finds nothing new. Loads of `held` models
    take as long as they are held, those of `crashing` ones end the server, and a `slow` server
    answers no load in time.
    """

    def __init__(self, *, instant: bool = True) -> None:
        self.instant = instant
        self.states: dict[tuple[str, int], str] = {}
        self.fingerprints: dict[str, str] = {}
        self.broken: set[tuple[str, int]] = set()
        self.absent: set[tuple[str, int]] = set()
        self.idle = False
        self.identity = "triton"
        self.reachable = True
        self.refuses_unload = False
        self.slow = False
        self.held: set[str] = set()
        self.crashing: set[str] = set()
        self.fault: Exception | None = None
        self.calls: list[str] = []
        self.closed = False
        self.seen = asyncio.Event()
        self.gate = asyncio.Event()
        self.gate.set()

    def serving(self, model: str = "model") -> frozenset[int]:
        """Return the versions of a model that answer."""
        return frozenset(v for (m, v), state in self.states.items() if m == model and state == "READY")

    def tick(self) -> None:
        """Let time pass: what loads is loaded, what unloads is gone."""
        after = {"LOADING": "READY", "UNLOADING": "UNAVAILABLE"}
        self.states = {key: after.get(state, state) for key, state in self.states.items()}

    def start(self, model: str, state: DesiredModel) -> None:
        """Have a model loaded, as a pod does that starts on a tree."""
        self._load(model, state.config)
        self.tick()

    def restart(self) -> None:
        """Forget everything, as a container does that starts anew on an empty tree."""
        self.states.clear()
        self.fingerprints.clear()

    async def name(self) -> str:
        await self._call("")
        return self.identity

    async def index(self) -> tuple[ModelVersion, ...]:
        await self._call("")
        if not self.instant:
            self.tick()
        self.seen.set()
        return tuple(
            ModelVersion(m, v, state, "broken" if state == "UNAVAILABLE" and (m, v) in self.broken else "")
            for (m, v), state in sorted(self.states.items())
        )

    async def config_fingerprint(self, model: str) -> str | None:
        await self._call("")
        return self.fingerprints.get(model) if self.serving(model) else None

    async def load(
        self,
        model: str,
        config: str,
        *,
        timeout: float,  # noqa: ASYNC109 - the protocol's
        versions: AbstractSet[int] | None = None,
    ) -> None:
        numbers = "" if versions is None else f" {sorted(versions)}"
        await self._call(f"load {model}{numbers}")
        if self.slow:
            raise TritonTimeout("Deadline Exceeded")
        while model in self.held:  # noqa: ASYNC110 - a test lets it go
            await asyncio.sleep(0.001)
        if model in self.crashing:
            self.reachable = False
            raise TritonUnreachable("Socket closed")
        if not self.idle:
            self._load(model, config, versions)
            if self.instant:
                self.tick()

    async def unload(self, model: str) -> None:
        await self._call(f"unload {model}")
        if self.refuses_unload:
            raise TritonRefused(f"failed to unload {model}")
        self.begin_unload(model)
        if self.instant:
            self.tick()

    async def version_ready(self, model: str, version: int) -> bool:
        await self._call("")
        if not self.instant:
            self.tick()
        return version in self.serving(model)

    async def close(self) -> None:
        self.closed = True

    def begin_unload(self, model: str) -> None:
        """Begin to unload every version of a model."""
        for key, state in self.states.items():
            if key[0] == model and state in ("READY", "LOADING"):
                self.states[key] = "UNLOADING"
        self.fingerprints.pop(model, None)

    def _load(self, model: str, config: str, versions: AbstractSet[int] | None = None) -> None:
        parsed = text_format.Parse(config, model_config_pb2.ModelConfig())
        selected = parsed.version_policy.specific.versions if versions is None else versions
        listed = {(model, int(v)) for v in selected} - self.absent
        failed = listed & self.broken
        if failed:
            self.states |= dict.fromkeys(failed, "UNAVAILABLE")
            raise TritonRefused(f"failed to load {model}: version {min(failed)[1]} is broken")
        fingerprint = parsed.parameters[CONFIG_PARAMETER].string_value
        again = self.fingerprints.get(model) != fingerprint
        for key, state in list(self.states.items()):
            if key[0] == model and key not in listed and state in ("READY", "LOADING"):
                self.states[key] = "UNLOADING"
        for key in listed:
            if again or self.states.get(key) not in ("READY", "LOADING"):
                self.states[key] = "LOADING"
        self.fingerprints[model] = fingerprint

    async def _call(self, what: str) -> None:
        if what:
            self.calls.append(what)
        await self.gate.wait()
        await asyncio.sleep(0)
        if self.fault is not None:
            raise self.fault
        if not self.reachable:
            raise TritonUnreachable("failed to connect")
