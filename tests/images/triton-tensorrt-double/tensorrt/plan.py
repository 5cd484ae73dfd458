"""What can be known of a plan without a GPU, and the model that it was compiled from."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

from engine_builder.codec import from_json
from engine_builder.compilers import plan_header
from engine_builder.contract import StoreManifest
from engine_builder.errors import JobError

if TYPE_CHECKING:
    from pathlib import Path


class UnservablePlanError(ValueError):
    """The plan cannot be served; the text is what Triton shows as the load error."""


def model_behind(plan: Path, *, max_batch_size: int) -> Path:
    """Return the prepared ONNX model that answers in the plan's stead; `plan` is a file of the store.

    Raises:
        UnservablePlanError: says what is wrong with the plan.
    """
    try:
        manifest = from_json(StoreManifest, plan.with_name("MANIFEST").read_bytes())
        report = json.loads(plan.with_name("report.json").read_bytes())
    except (OSError, ValueError) as error:
        raise UnservablePlanError(f"no complete entry of the store: {error}") from error
    _check_header(plan, manifest)
    if max_batch_size:
        _check_batch(report["profiles"], max_batch_size)
    return plan.parent.parent / manifest.prepared / "model.onnx"


def _check_header(plan: Path, manifest: StoreManifest) -> None:
    size = plan.stat().st_size
    with plan.open("rb") as file:
        beginning = file.read(plan_header.SIZE)
    try:
        header = plan_header.read(beginning)
    except JobError as error:
        raise UnservablePlanError(f"no plan: it begins with {beginning[:8].hex() or 'nothing'}") from error
    if header.size not in (None, size):
        raise UnservablePlanError(f"not whole: its header says {header.size} bytes, and it has {size}")
    if header.version_text != manifest.tensorrt:
        raise UnservablePlanError(
            f"of TensorRT {header.version_text} by its header and {manifest.tensorrt} by its MANIFEST"
        )


def _check_batch(profiles: list[list[dict[str, Any]]], max_batch_size: int) -> None:
    """Hold max_batch_size against the first profile, which is the one that Triton uses."""
    shapes = [given for profile in profiles[:1] for given in profile if not given["values"]]
    largest = min((given["max"][0] for given in shapes), default=0)
    if max_batch_size > largest:
        raise UnservablePlanError(
            f"built for batches of at most {largest}, and max_batch_size is {max_batch_size}"
        )
