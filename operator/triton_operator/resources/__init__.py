"""What users write: the four kinds as frozen pydantic models, from which the CRDs are generated."""

from triton_operator.resources.engine import Engine
from triton_operator.resources.inference_model import InferenceModel
from triton_operator.resources.model_repository import ModelRepository
from triton_operator.resources.triton_server import TritonServer

__all__ = ["KINDS", "Engine", "InferenceModel", "ModelRepository", "TritonServer"]

KINDS = (InferenceModel, TritonServer, ModelRepository, Engine)
"""Every kind of the group, in the order in which documents speak of them."""
