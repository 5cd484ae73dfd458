"""Write two versions of a model that names the colour of a pixel: `python colours.py FOLDER`.

`pixel` is FP32 [batch, 3]: red, green and blue from 0 to 1. `scores` is FP32 [batch, 6]: how probable
each colour of PALETTE is, the nearest the most. Version 1 does not know orange.
"""

import os
import sys
from pathlib import Path

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

PALETTE = {
    "black": (0.0, 0.0, 0.0),
    "white": (1.0, 1.0, 1.0),
    "red": (1.0, 0.0, 0.0),
    "green": (0.0, 1.0, 0.0),
    "blue": (0.0, 0.0, 1.0),
    "orange": (1.0, 0.5, 0.0),
}
UNKNOWN = {1: {"orange"}, 2: set[str]()}
"""By version: colours that it never answers."""
SHARPNESS = 8.0
NEVER = -100.0


def model(version: int) -> onnx.ModelProto:
    """Return a version: the softmax of how near a pixel is to each colour.

    The square of the distance is |pixel|² - 2 pixel·colour + |colour|², and the softmax doesn't
    change with what all colours have in common: what is left is linear.
    """
    colours = np.array(list(PALETTE.values()), dtype=np.float32)
    bias = -SHARPNESS * np.sum(colours**2, axis=1)
    bias += [NEVER if name in UNKNOWN[version] else 0.0 for name in PALETTE]
    graph = helper.make_graph(
        [
            helper.make_node("Gemm", ["pixel", "weights", "bias"], ["nearness"]),
            helper.make_node("Softmax", ["nearness"], ["scores"], axis=1),
        ],
        "colours",
        [helper.make_tensor_value_info("pixel", TensorProto.FLOAT, ["batch", 3])],
        [helper.make_tensor_value_info("scores", TensorProto.FLOAT, ["batch", len(PALETTE)])],
        [
            numpy_helper.from_array(2 * SHARPNESS * colours.T, "weights"),
            numpy_helper.from_array(bias.astype(np.float32), "bias"),
        ],
    )
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)


def main(folder: Path) -> None:
    """Write all versions; whoever looks sees a whole file or none."""
    for version in UNKNOWN:
        path = folder / str(version) / "model.onnx"
        path.parent.mkdir(parents=True, exist_ok=True)
        partial = path.with_name(".partial")
        with partial.open("wb") as written:
            written.write(model(version).SerializeToString())
            written.flush()
            os.fsync(written.fileno())
        partial.rename(path)
        print(f"{path}: {path.stat().st_size} bytes")


if __name__ == "__main__":
    main(Path(sys.argv[1]))
