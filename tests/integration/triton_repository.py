"""What a Triton in explicit mode does with its model repository, as far as the operator can see it.

Every rule here is one that `triton/test_contract.py` checks against the real server too.
"""

from __future__ import annotations

import contextlib
import dataclasses
import threading
import time
from collections import Counter, defaultdict
from collections.abc import Mapping
from collections.abc import Set as AbstractSet
from pathlib import Path
from typing import Protocol, TypeVar

import numpy as np
import onnxruntime
import openvino
from google.protobuf import json_format, text_format
from tritonclient.grpc import model_config_pb2

from engine_builder.compilers import plan_header
from engine_builder.contract import StoreManifest, from_json

UNLOADING_SECONDS = 0.1
"""How long a version shows as UNLOADING; real ones take as long as their requests in flight."""

Value = TypeVar("Value")


class LoadError(Exception):
    """A load was refused for what a version is; the old set keeps serving."""


class PollError(Exception):
    """A model's directory or override could not be read."""


class CrashError(Exception):
    """What was to be loaded has ended the whole server."""


@dataclasses.dataclass
class Faults:
    """Switches for tests; each may be changed while the server runs.

    Models are named `model`, or `model/number` where one of their versions alone is meant. Loading
    has a fault when there is something to load: a version that runs as it should is left alone.
    """

    fail_load: dict[str, str] = dataclasses.field(default_factory=dict)
    """Model → text with which its loads are refused."""
    slow_load: dict[str, float] = dataclasses.field(default_factory=dict)
    """Model → seconds that each load takes."""
    ignore_load: set[str] = dataclasses.field(default_factory=set)
    """Models whose loads are answered and change nothing, as when a network volume shows an old directory."""
    crash_load: set[str] = dataclasses.field(default_factory=set)
    """Models whose loading ends the server, as a backend does that runs into a bad pointer."""
    nan: set[str] = dataclasses.field(default_factory=set)
    """Models that answer NaN."""
    opposite: set[str] = dataclasses.field(default_factory=set)
    """Models that answer with the opposite sign."""
    hang: bool = False
    """Whether every call waits until it is cancelled or this is switched off."""


class Session(Protocol):
    """A model that a runtime has opened."""

    def run(self, outputs: list[str], inputs: Mapping[str, np.ndarray]) -> list[np.ndarray]:
        """Return these outputs."""


class OpenVINOSession:
    """The same for OpenVINO, which has other words."""

    def __init__(self, path: Path) -> None:
        settings = {"INFERENCE_NUM_THREADS": 1, "INFERENCE_PRECISION_HINT": "f32"}
        self._model = openvino.Core().compile_model(path, "CPU", settings)

    def run(self, outputs: list[str], inputs: Mapping[str, np.ndarray]) -> list[np.ndarray]:
        """Return these outputs; one request of a model that is used at a time."""
        answers = self._model.create_infer_request().infer(dict(inputs))
        return [np.array(answers[name]) for name in outputs]


@dataclasses.dataclass(frozen=True)
class Version:
    """One version that is loaded: session, the configuration it runs with, age of its files."""

    session: Session
    config: model_config_pb2.ModelConfig
    modified: float
    labels: Mapping[str, tuple[str, ...]]
    """Output → what the classes of its elements are called."""
    answered: list[int] = dataclasses.field(default_factory=list)
    """Batch size of each request that it answered; a reload begins a new list."""


@dataclasses.dataclass
class Model:
    """One model as the server knows it: effective configuration and versions by state."""

    config: model_config_pb2.ModelConfig
    modified: float
    ready: dict[int, Version] = dataclasses.field(default_factory=dict)
    loading: frozenset[int] = frozenset()
    unloading: dict[int, float] = dataclasses.field(default_factory=dict)
    failed: dict[int, str] = dataclasses.field(default_factory=dict)


@dataclasses.dataclass(frozen=True)
class Row:
    """A row of the repository index."""

    name: str
    version: str = ""
    state: str = ""
    reason: str = ""


class Repository:
    """The models of one server; loads of one model wait for each other, and reading waits for nobody."""

    def __init__(self, directory: Path, faults: Faults) -> None:
        self.directory = directory
        self.faults = faults
        self.models: dict[str, Model] = {}
        self.version_loads: Counter[tuple[str, int]] = Counter()
        self._polled: set[str] = set()
        self._locks: defaultdict[str, threading.Lock] = defaultdict(threading.Lock)

    def start(self) -> None:
        """Load whatever lies in the directory, as `--load-model=*` does; what fails is left out.

        Raises:
            CrashError: one of them has ended the server.
        """
        self.models.clear()
        self._polled.clear()
        for name in self._names():
            with contextlib.suppress(LoadError, PollError):
                self.load(name)

    def load(self, name: str, override: str | None = None) -> None:
        """Bring a model to its configuration: load what is missing or newer, then unload the rest.

        Raises:
            LoadError: a version can't be loaded, or there is none.
            PollError: the model can't be read.
            CrashError: it has ended the server.
        """
        with self._locks[name]:
            if name in self.faults.ignore_load:
                return
            modified = _newest(self.directory / name)
            config = self._effective_config(name, override, modified=modified)
            model = self.models.setdefault(name, Model(config=config, modified=modified))
            self._apply(name, model=model, config=config)
            model.config, model.modified = config, modified
            self._polled.add(name)

    def unload(self, name: str) -> None:
        """Begin to unload every version, once a load that goes on has ended; unknown names are fine."""
        with self._locks[name]:
            if model := self.models.get(name):
                self._retire(model, set(model.ready))
                self._polled.discard(name)

    def index(self) -> list[Row]:
        """Return a row per known version; a model known by its directory alone has a bare row."""
        rows: list[Row] = []
        for name in self._names():
            model = self.models.get(name)
            rows += _rows(name, model) if model else [Row(name)]
        return rows

    def ready(self, name: str) -> dict[int, Version]:
        """Return the versions of a model that answer requests."""
        model = self.models.get(name)
        return dict(model.ready) if model else {}

    def knows(self, name: str) -> bool:
        """Return whether the server ever tried to load this model."""
        return name in self.models

    def _names(self) -> list[str]:
        if not self.directory.is_dir():
            return []
        return sorted(entry.name for entry in self.directory.iterdir() if entry.is_dir())

    def _effective_config(
        self, name: str, override: str | None, *, modified: float
    ) -> model_config_pb2.ModelConfig:
        """Return override, else file; an earlier override sticks until a file is newer."""
        if not (self.directory / name).is_dir():
            raise PollError
        if override is not None:
            return _parse_override(name, override)
        known = self.models.get(name)
        if known and name in self._polled and modified <= known.modified:
            return known.config
        return _parse_file(self.directory / name / "config.pbtxt")

    def _apply(self, name: str, *, model: Model, config: model_config_pb2.ModelConfig) -> None:
        directories = _version_directories(self.directory / name)
        wanted = {number: directories[number] for number in self._selected(config) if number in directories}
        if not wanted:
            message = f"at least one version must be available under the version policy of model '{name}'"
            raise LoadError(f"load failed for model '{name}': {message}\n")
        kept = {
            n: each for n, each in model.ready.items() if n in wanted and _runs_on(each, config, wanted[n])
        }
        model.loading = frozenset(wanted.keys() - kept.keys())
        try:
            loaded, failed = self._open_all(name, config, {n: wanted[n] for n in sorted(model.loading)})
        finally:
            model.loading = frozenset()
        if failed:
            self._leave_out(model, loaded.keys() - model.ready.keys())
            self._refuse(model, name=name, failed=failed)
        retired = set(model.ready) - set(wanted)
        for number in wanted:
            model.failed.pop(number, None)
            model.unloading.pop(number, None)
        same = {number: dataclasses.replace(each, config=config) for number, each in kept.items()}
        model.ready = model.ready | same | loaded
        self._retire(model, retired)

    def _open_all(
        self, name: str, config: model_config_pb2.ModelConfig, wanted: Mapping[int, Path]
    ) -> tuple[dict[int, Version], dict[int, str]]:
        """Open versions; return those that could be, and the reasons of those that could not."""
        loaded: dict[int, Version] = {}
        failed: dict[int, str] = {}
        for number, directory in wanted.items():
            self._misbehave(name, number)
            try:
                loaded[number] = _open(directory, config)
            except Exception as error:  # noqa: BLE001 - whatever the runtime raises is the reason shown
                failed[number] = f"Internal: {error}"
                continue
            if refusal := _of(self.faults.fail_load, name, number):
                failed[number] = refusal
            else:
                self.version_loads[name, number] += 1
        return {n: each for n, each in loaded.items() if n not in failed}, failed

    def _misbehave(self, name: str, number: int) -> None:
        time.sleep(_of(self.faults.slow_load, name, number) or 0)
        if {name, f"{name}/{number}"} & self.faults.crash_load:
            raise CrashError

    def _leave_out(self, model: Model, numbers: AbstractSet[int]) -> None:
        """Unload what was loaded beside a version that could not be."""
        model.unloading |= dict.fromkeys(numbers, time.monotonic() + UNLOADING_SECONDS)

    def _refuse(self, model: Model, *, name: str, failed: dict[int, str]) -> None:
        model.failed |= {number: text for number, text in failed.items() if number not in model.ready}
        text = "".join(
            f"version {number} is at UNAVAILABLE state: {reason}; "
            for number, reason in sorted(failed.items())
        )
        raise LoadError(f"load failed for model '{name}': {text}\n")

    def _retire(self, model: Model, numbers: set[int]) -> None:
        self._leave_out(model, numbers)
        model.ready = {number: each for number, each in model.ready.items() if number not in numbers}

    def _selected(self, config: model_config_pb2.ModelConfig) -> list[int]:
        present = sorted(_version_directories(self.directory / config.name))
        policy = config.version_policy
        match policy.WhichOneof("policy_choice"):
            case "specific":
                return [number for number in policy.specific.versions if number in present]
            case "all":
                return present
            case _:
                return present[-max(1, policy.latest.num_versions) :]


def _rows(name: str, model: Model) -> list[Row]:
    rows = {number: Row(name, str(number), "READY") for number in model.ready}
    for number in model.loading:
        rows.setdefault(number, Row(name, str(number), "LOADING"))
    for number, until in model.unloading.copy().items():
        gone = time.monotonic() >= until
        row = (
            Row(name, str(number), "UNAVAILABLE", "unloaded") if gone else Row(name, str(number), "UNLOADING")
        )
        rows.setdefault(number, row)
    for number, reason in model.failed.copy().items():
        rows.setdefault(number, Row(name, str(number), "UNAVAILABLE", reason))
    return [row for _, row in sorted(rows.items())]


def _parse_override(name: str, text: str) -> model_config_pb2.ModelConfig:
    try:
        config = json_format.Parse(text, model_config_pb2.ModelConfig())
    except json_format.ParseError as error:
        raise PollError from error
    if config.name not in ("", name):
        raise PollError
    return config


def _parse_file(path: Path) -> model_config_pb2.ModelConfig:
    try:
        config = text_format.Parse(path.read_text(), model_config_pb2.ModelConfig())
    except (OSError, text_format.ParseError) as error:
        raise PollError from error
    if not config.name:
        config.name = path.parent.name
    if config.name != path.parent.name or any(
        not link.exists() for link in path.parent.iterdir() if link.is_symlink()
    ):
        raise PollError
    return config


def _same_but_policy(one: model_config_pb2.ModelConfig, other: model_config_pb2.ModelConfig) -> bool:
    """Return whether a version runs on under the other configuration: all but the policy is equal."""
    pair = [model_config_pb2.ModelConfig(), model_config_pb2.ModelConfig()]
    for copy, original in zip(pair, (one, other), strict=True):
        copy.CopyFrom(original)
        copy.ClearField("version_policy")
    return pair[0] == pair[1]


def _version_directories(model: Path) -> dict[int, Path]:
    if not model.is_dir():
        return {}
    return {int(entry.name): entry for entry in model.iterdir() if entry.name.isdigit() and entry.is_dir()}


def _of(faults: Mapping[str, Value], name: str, number: int) -> Value | None:
    """Return the fault of a version, or else of its model."""
    return faults.get(f"{name}/{number}") or faults.get(name)


def _runs_on(version: Version, config: model_config_pb2.ModelConfig, directory: Path) -> bool:
    """Return whether a version that is loaded stays as it is under a configuration."""
    return _same_but_policy(version.config, config) and _modified(directory) <= version.modified


def _modified(directory: Path) -> float:
    return max(_newest(directory), _newest_plain_file(directory.parent))


def _open(directory: Path, config: model_config_pb2.ModelConfig) -> Version:
    labels = {
        output.name: _labels(directory.parent / output.label_filename)
        for output in config.output
        if output.label_filename
    }
    modified = _modified(directory)
    return Version(
        session=_session(directory, config.backend), config=config, modified=modified, labels=labels
    )


def _labels(path: Path) -> tuple[str, ...]:
    try:
        return tuple(path.read_text().splitlines())
    except FileNotFoundError as error:
        text = f"failed to open text file for read {path}: No such file or directory"
        raise OSError(text) from error


def _session(directory: Path, backend: str) -> Session:
    if backend == "openvino":
        return OpenVINOSession(directory / "model.xml")
    options = onnxruntime.SessionOptions()
    options.log_severity_level = 4
    options.intra_op_num_threads = 1
    path = _behind_plan(directory) if backend == "tensorrt" else directory / "model.onnx"
    return onnxruntime.InferenceSession(str(path), options, providers=["CPUExecutionProvider"])


def _behind_plan(directory: Path) -> Path:
    """Return the ONNX model from which a plan was compiled: plans run on GPUs only, so it answers here.

    The plan itself must be whole, as its header says.
    """
    plan = directory / "model.plan"
    with plan.open("rb") as file:
        header = plan_header.read(file.read(plan_header.SIZE))
    if header.size not in (None, plan.stat().st_size):
        raise ValueError(f"unable to load plan file {plan}: it is not whole")
    manifest = from_json(StoreManifest, (directory / "MANIFEST").read_bytes())
    return directory.resolve().parent / manifest.prepared / "model.onnx"


def _newest(path: Path) -> float:
    """Return the latest change of a file, or of a directory and anything below; 0 when it is gone.

    Links are followed. Like the real server this takes the later of mtime and ctime: a chmod or a new hard
    link counts as a change.
    """
    try:
        stat = path.stat()
        below = list(path.iterdir()) if path.is_dir() else []
    except OSError:
        return 0.0
    return max([stat.st_mtime, stat.st_ctime, *(_newest(entry) for entry in below)])


def _newest_plain_file(model: Path) -> float:
    """Return the latest change of files beside config.pbtxt: a new one reloads every version."""
    plain = [entry for entry in model.iterdir() if entry.is_file() and entry.name != "config.pbtxt"]
    return max((_newest(entry) for entry in plain), default=0.0)
