"""config.pbtxt of a model, written with Triton's own protobuf messages, never as strings."""

from __future__ import annotations

import dataclasses
import hashlib
import re
from collections.abc import Collection, Iterable, Mapping

from google.protobuf import text_format
from tritonclient.grpc import model_config_pb2 as pb

from engine_builder.contract import CONFIG_PARAMETER, Signature, Tensor
from triton_operator.resources.inference_model import InferenceModelSpec
from triton_operator.resources.serving import InstanceGroup, Serving
from triton_operator.resources.version import Backend

TRITON_BACKENDS = {
    Backend.ONNX_RUNTIME: "onnxruntime",
    Backend.OPENVINO: "openvino",
    Backend.TENSORRT: "tensorrt",
}
"""Backend of the spec → Triton's name for it."""

_DATATYPES = {"BYTES": "TYPE_STRING"}
_KINDS = {"Auto": "KIND_AUTO", "CPU": "KIND_CPU", "GPU": "KIND_GPU"}
_NOT_IN_FILE_NAMES = re.compile(r"[^A-Za-z0-9_-]")

Shapes = Mapping[str, tuple[int, ...]]
"""Input → a shape that a request of it may have, batch included."""


@dataclasses.dataclass(frozen=True)
class ModelConfig:
    """The text of config.pbtxt, the fingerprint that stands among its parameters, and files beside it."""

    text: str
    fingerprint: str
    files: Mapping[str, str] = dataclasses.field(default_factory=dict)
    """Name → text, in the model's directory."""


@dataclasses.dataclass(frozen=True)
class CandidateConfig:
    """A candidate's config.pbtxt, which no pod loads at start, and what one pod is told to load instead."""

    tree_text: str
    load_text: str
    fingerprint: str


def max_batch_size(spec: InferenceModelSpec, signature: Signature, versions: Collection[int]) -> int:
    """Return Triton's max_batch_size: what the spec says, or 0 when the batch dimension is fixed.

    It is 0, too, where the batch is one of the free dimensions that OpenVINO takes as they come.
    """
    if spec.backend is Backend.OPENVINO and not _is_padded(spec, signature):
        return 0
    return spec.max_batch_size(versions) if signature.has_batch else 0


def _is_padded(spec: InferenceModelSpec, signature: Signature) -> bool:
    """Tell whether OpenVINO's batches are filled up: with a max_batch_size its backend runs no other.

    So it has one only to put requests together, and where the other dimensions let it fill up.
    """
    fixed = all(-1 not in tensor.shape[1:] for tensor in signature.inputs)
    return spec.serving.dynamic_batching is not None and fixed


def unknown_labels(spec: InferenceModelSpec, signature: Signature) -> tuple[str, ...]:
    """Return the names in serving.labels that are no outputs of the model."""
    return tuple(sorted(spec.serving.labels.keys() - {tensor.name for tensor in signature.outputs}))


def render(
    *,
    name: str,
    spec: InferenceModelSpec,
    signature: Signature,
    versions: Collection[int],
    sample_shapes: Shapes | None = None,
) -> ModelConfig:
    """Return the configuration of a model that serves exactly these versions.

    `sample_shapes` give warm-up the sizes that the signature leaves open; without them a model
    with such inputs isn't warmed up. Labels of what is no output are left out.

    The fingerprint doesn't cover the versions: Triton reloads every version when a parameter
    changes, and only what differs when the version policy does.
    """
    config = _config(name, spec, signature, versions)
    if spec.serving.warmup:
        config.model_warmup.extend(_warmup(config, sample_shapes or {}))
    files = _add_labels(config, spec.serving.labels)
    fingerprint = _add_fingerprint(config)
    config.version_policy.specific.versions.extend(sorted(versions))
    return ModelConfig(text=text_format.MessageToString(config), fingerprint=fingerprint, files=files)


def candidate(*, name: str, spec: InferenceModelSpec, signature: Signature, version: int) -> CandidateConfig:
    """Return the configuration of a version on trial: as it will be served, but on one instance each.

    A configuration that selects no version makes pods that start leave the model alone.
    """
    config = _config(name, spec, signature, {version})
    for group in config.instance_group:
        group.count = 1
    fingerprint = _add_fingerprint(config)
    config.version_policy.specific.SetInParent()
    tree_text = text_format.MessageToString(config)
    config.version_policy.specific.versions.append(version)
    return CandidateConfig(tree_text, text_format.MessageToString(config), fingerprint)


def changes(before: str, after: str) -> tuple[str, ...]:
    """Return the fields of config.pbtxt in which two texts differ, but for versions and fingerprint.

    Other labels show as `output`, whose `label_filename` names them.
    """
    old, new = _fields(before), _fields(after)
    return tuple(sorted(name for name in old.keys() | new.keys() if old.get(name) != new.get(name)))


def _fields(text: str) -> dict[str, object]:
    """Return the fields that are set, but for those that the operator changes by itself."""
    config = text_format.Parse(text, pb.ModelConfig())
    config.ClearField("version_policy")
    config.parameters.pop(CONFIG_PARAMETER, None)
    return {field.name: value for field, value in config.ListFields()}


def _config(
    name: str, spec: InferenceModelSpec, signature: Signature, versions: Collection[int]
) -> pb.ModelConfig:
    """Return what a model and its candidates have in common."""
    config = pb.ModelConfig(name=name, backend=TRITON_BACKENDS[spec.backend])
    config.max_batch_size = max_batch_size(spec, signature, versions)
    skip = 1 if config.max_batch_size else 0
    config.input.extend(_tensor(pb.ModelInput(), tensor, skip) for tensor in signature.inputs)
    config.output.extend(_tensor(pb.ModelOutput(), tensor, skip) for tensor in signature.outputs)
    _add_serving(config, spec.serving)
    if spec.backend is Backend.OPENVINO:
        _add_openvino(config)
    return config


def _add_openvino(config: pb.ModelConfig) -> None:
    """Add what its backend must be told: https://github.com/triton-inference-server/openvino_backend."""
    for group in config.instance_group:
        if group.kind == group.KIND_AUTO:  # on a node with GPUs Triton would choose these
            group.kind = group.KIND_CPU
    if config.max_batch_size:
        for parameter in ("ENABLE_BATCH_PADDING", "SKIP_OV_DYNAMIC_BATCHSIZE"):
            if parameter not in config.parameters:  # what the spec says holds
                config.parameters[parameter].string_value = "YES"


def _add_fingerprint(config: pb.ModelConfig) -> str:
    fingerprint = hashlib.sha256(text_format.MessageToString(config).encode()).hexdigest()[:16]
    config.parameters[CONFIG_PARAMETER].string_value = fingerprint
    return fingerprint


def _tensor(
    message: pb.ModelInput | pb.ModelOutput, tensor: Tensor, skip: int
) -> pb.ModelInput | pb.ModelOutput:
    message.name = tensor.name
    message.data_type = pb.DataType.Value(_DATATYPES.get(tensor.datatype, f"TYPE_{tensor.datatype}"))
    dims = tensor.shape[skip:]
    if dims:
        message.dims.extend(dims)
    else:  # Triton wants at least one dimension: a scalar is a vector of one, reshaped
        message.dims.append(1)
        message.reshape.SetInParent()
    return message


def _add_serving(config: pb.ModelConfig, serving: Serving) -> None:
    batching = serving.dynamic_batching
    if batching is not None and config.max_batch_size:
        config.dynamic_batching.SetInParent()
        config.dynamic_batching.preferred_batch_size.extend(batching.preferred_batch_sizes)
        config.dynamic_batching.max_queue_delay_microseconds = batching.max_queue_delay_microseconds
    for instance in serving.instances or (InstanceGroup(),):
        group = config.instance_group.add()
        group.count = instance.count
        group.kind = pb.ModelInstanceGroup.Kind.Value(_KINDS[instance.kind.value])
    for key, value in sorted(serving.parameters.items()):
        config.parameters[key].string_value = value


def _warmup(config: pb.ModelConfig, shapes: Shapes) -> list[pb.ModelWarmup]:
    """Return requests of the smallest and of the largest batch, or none where a size isn't known.

    They hold zeros: Triton's random data are random bytes, so an integer is an index far out of
    range and a float often no number. A warm-up that fails fails the load, and may end Triton.
    """
    inputs = {
        tensor.name: pb.ModelWarmup.Input(
            data_type=tensor.data_type, dims=_sizes(tensor, config, shapes), zero_data=True
        )
        for tensor in config.input
    }
    if any(size < 1 for entry in inputs.values() for size in entry.dims):
        return []
    batches = sorted({1, max(1, config.max_batch_size)})
    return [pb.ModelWarmup(name=f"batch-{size}", batch_size=size, inputs=inputs) for size in batches]


def _sizes(tensor: pb.ModelInput, config: pb.ModelConfig, shapes: Shapes) -> list[int]:
    """Return the dimensions without the batch; what neither configuration nor sample knows is -1."""
    sample = shapes.get(tensor.name, ())[1 if config.max_batch_size else 0 :]
    if len(sample) != len(tensor.dims):
        return list(tensor.dims)
    return [known if dim == -1 else dim for dim, known in zip(tensor.dims, sample, strict=True)]


def _add_labels(config: pb.ModelConfig, labels: Mapping[str, Iterable[str]]) -> dict[str, str]:
    """Name the label file of each output that has labels; return the files.

    A file is named after its content: a pod that sees the volume late would load old labels
    under a new configuration, but refuses a file that is not there.
    """
    files = {}
    for tensor in config.output:
        if tensor.name in labels:
            text = "".join(f"{label}\n" for label in labels[tensor.name])
            tensor.label_filename = _label_file(tensor.name, text)
            files[tensor.label_filename] = text
    return files


def _label_file(output: str, text: str) -> str:
    """Return a name that tells outputs and contents apart, whatever characters the output's name has."""
    readable = _NOT_IN_FILE_NAMES.sub("_", output)[:64]
    digest = hashlib.sha256(f"{output}\n{text}".encode()).hexdigest()[:12]
    return f"labels_{readable}.{digest}.txt"
