"""The command line, and the demo as a list of steps."""

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path

from rich.console import Console

from demo import installation, report, rollout, serving, tensorrt
from demo.cluster import Cluster
from demo.errors import DemoError
from demo.scene import NAMESPACE, Scene
from demo.story import Story

WIDTH = 120
"""Of the output where there is no terminal, as in a log."""


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command line and return its exit status."""
    options = _parser().parse_args(arguments)
    console = Console(highlight=False, width=None if sys.stdout.isatty() else WIDTH)
    try:
        if options.remove:
            installation.remove(NAMESPACE)
            return 0
        _demonstrate(console, options)
        return 0
    except DemoError as error:
        console.print(f"error: {error}", style="red", markup=False, soft_wrap=True)
        return 1
    except KeyboardInterrupt:
        console.print("interrupted; what was installed stays (`make demo-down` removes it)")
        return 130


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="hack/demo",
        description="From an ONNX model to answers, to its next version, and to plans for two GPU types.",
    )
    parser.add_argument("--images", type=Path, required=True, help="file that `make images` wrote")
    parser.add_argument(
        "--cluster",
        choices=("local", "current"),
        default="local",
        help="current: reach Triton by kubectl's port forwarding (default: %(default)s)",
    )
    parser.add_argument("--timeout", type=float, default=600, help="seconds to wait for Ready (default: 600)")
    parser.add_argument("--remove", action="store_true", help="remove what the demo installed, and end")
    return parser


def _demonstrate(console: Console, options: argparse.Namespace) -> None:
    images = installation.read_images(options.images)
    forward = options.cluster == "current"
    scene = Scene(console, Cluster(), Story(console), images, forward=forward, timeout=options.timeout)
    with scene.step(f"helm upgrade --install, namespace {installation.OPERATOR_NAMESPACE}"):
        installation.install_operator(images)
    serving.show(scene)
    rollout.show(scene)
    if installation.COMPILER in images:
        tensorrt.show(scene)
    else:
        console.print(f"TensorRT is left out: there is no image {installation.COMPILER}", style="dim")
    report.look_further(console, rollout.TARGET, local=not forward)
