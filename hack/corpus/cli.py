"""Prepare the models of the onnx wheel at every precision, compile them, and tell by reason what came of it.

Exits with 1 when a library crashed, an answer differs from the wheel's, or a refusal is not explained.
"""

from __future__ import annotations

import argparse
import multiprocessing
import tempfile
import time
from collections.abc import Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path

# The children are forks of this process: what is imported here they need not import again.
import onnxruntime.quantization
import onnxruntime.transformers.float16  # noqa: F401

from corpus import case, compiling, parser, verdict, wheel
from corpus.case import Outcome
from corpus.compiling import TARGETS, Compiled

_SAMPLE_STEP = 4
_LARGE = "light/"
_LARGE_SAMPLE = ("light/light_shufflenet", "light/light_squeezenet")


def main() -> int:
    """Run what the command line asks for."""
    arguments = _arguments()
    models = [model for model in wheel.models() if arguments.only in model.name]
    if arguments.sample:
        models = _sample(models)
    began, found = time.monotonic(), list[Outcome | Compiled]()
    for each in _run(models):
        found.append(each)
        wrong = verdict.problem(each)
        if arguments.verbose or wrong:
            print(_line(each, wrong), flush=True)
    prepared = [each for each in found if isinstance(each, Outcome)]
    compiled = [each for each in found if isinstance(each, Compiled)]
    print(verdict.table(list(TARGETS), ((each.precision, each.reason) for each in prepared)))
    print(f"{len(models)} models, {len(prepared)} cases\n")
    print(verdict.table(compiling.COLUMNS, ((each.column, each.reason) for each in compiled)))
    seconds = time.monotonic() - began
    print(f"{len(compiled)} compiled with {parser.COMPILER} {parser.version()}, {seconds:.0f} s in all")
    return int(any(map(verdict.problem, found)) or not found)


def _arguments() -> argparse.Namespace:
    command = argparse.ArgumentParser("corpus", description=__doc__)
    command.add_argument("--only", default="", metavar="TEXT", help="models with this in their name")
    command.add_argument(
        "--sample", action="store_true", help="two large nets and every fourth of the others"
    )
    command.add_argument("--verbose", action="store_true", help="a line for every case")
    return command.parse_args()


def _sample(models: Sequence[wheel.WheelModel]) -> list[wheel.WheelModel]:
    small = [model for model in models if not model.name.startswith(_LARGE)]
    return [*(model for model in models if model.name in _LARGE_SAMPLE), *small[::_SAMPLE_STEP]]


def _run(models: Sequence[wheel.WheelModel]) -> Iterator[Outcome | Compiled]:
    """Run all cases of the models, on as many cores as there are."""
    context = multiprocessing.get_context("fork")
    with ProcessPoolExecutor(mp_context=context) as pool:
        for found in pool.map(_outcomes, models):
            yield from found


def _outcomes(model: wheel.WheelModel) -> list[Outcome | Compiled]:
    found = list[Outcome | Compiled]()
    for precision in case.precisions(model):
        with tempfile.TemporaryDirectory(prefix="corpus.") as repository:
            prepared = case.run(model, precision, root=Path(repository), number=1)
            found += [prepared, *compiling.run(model, prepared)]
    return found


def _line(found: Outcome | Compiled, wrong: str) -> str:
    cosine = getattr(found, "cosine", None)
    told = [f"{found.model} {found.column} {found.seconds:.1f} s: {found.reason}"]
    told += [f"cosine {cosine:.6f}"] if cosine is not None else []
    return f"{'PROBLEM ' if wrong else ''}{', '.join(told)}: {wrong or found.message}"
