"""config.pbtxt of a model, written with Triton's own protobuf messages, never as strings."""

from __future__ import annotations

import dataclasses
import hashlib
from collections.abc import Iterable

from google.protobuf import text_format
from tritonclient.grpc import model_config_pb2 as pb

from engine_builder.contract import CONFIG_PARAMETER, Signature, Tensor
from triton_operator.resources.inference_model import InferenceModelSpec
from triton_operator.resources.serving import InstanceGroup, Serving

TRITON_BACKENDS = {"ONNXRuntime": "onnxruntime"}
"""Backend of the spec → Triton's name for it."""

_DATATYPES = {"BYTES": "TYPE_STRING"}
_KINDS = {"Auto": "KIND_AUTO", "CPU": "KIND_CPU", "GPU": "KIND_GPU"}


@dataclasses.dataclass(frozen=True)
class ModelConfig:
    """The text of config.pbtxt and the fingerprint that stands among its parameters."""

    text: str
    fingerprint: str


def batchable(signature: Signature) -> bool:
    """Tell whether the first dimension of every input and output is a free batch dimension."""
    tensors = [*signature.inputs, *signature.outputs]
    return bool(tensors) and all(t.shape and t.shape[0] == -1 for t in tensors)


def max_batch_size(spec: InferenceModelSpec, signature: Signature) -> int:
    """Return Triton's max_batch_size: what the spec says, or 0 when the batch dimension is fixed."""
    return spec.max_batch_size if batchable(signature) else 0


def render(
    *, name: str, spec: InferenceModelSpec, signature: Signature, versions: Iterable[int]
) -> ModelConfig:
    """Return the configuration of a model that serves exactly these versions.

    The fingerprint doesn't cover the versions: Triton reloads every version when a parameter
    changes, and only what differs when the version policy does.
    """
    config = pb.ModelConfig(name=name, backend=TRITON_BACKENDS[spec.backend.value])
    config.max_batch_size = max_batch_size(spec, signature)
    skip = 1 if config.max_batch_size else 0
    config.input.extend(_tensor(pb.ModelInput(), tensor, skip) for tensor in signature.inputs)
    config.output.extend(_tensor(pb.ModelOutput(), tensor, skip) for tensor in signature.outputs)
    _add_serving(config, spec.serving)
    fingerprint = hashlib.sha256(text_format.MessageToString(config).encode()).hexdigest()[:16]
    config.parameters[CONFIG_PARAMETER].string_value = fingerprint
    config.version_policy.specific.versions.extend(sorted(versions))
    return ModelConfig(text=text_format.MessageToString(config), fingerprint=fingerprint)


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
