"""triton-operator: a Kubernetes operator for NVIDIA Triton Inference Server."""

from importlib.metadata import version

__version__ = version("triton-operator")
