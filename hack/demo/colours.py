"""The second half's model: it names the colour of a pixel, and version 1 does not know orange."""

import runpy
from dataclasses import dataclass

import numpy as np
import tritonclient.http
from numpy.typing import NDArray
from onnx.reference import ReferenceEvaluator
from tritonclient.utils import InferenceServerException

from demo.errors import DemoError
from demo.installation import ROLLOUT
from load import Question

MODEL, INPUT, OUTPUT = "colours", "pixel", "scores"
PIXEL_NAME = "#ff8000"
PIXEL = np.array([[1.0, 0.5, 0.0]], dtype=np.float32)
VERSIONS = (1, 2)


@dataclass(frozen=True)
class Answer:
    """How a version names the pixel."""

    version: int
    colour: str
    score: float

    def __str__(self) -> str:
        """Return it as a sentence."""
        return f"{PIXEL_NAME} is {self.colour}, says version {self.version} (score {self.score:.2f})"


def question() -> Question:
    """Return a request for all scores, with the right ones of each version by onnx's own evaluator."""
    model = runpy.run_path(str(ROLLOUT / "colours.py"))["model"]
    expected: dict[int, NDArray[np.generic]] = {}
    for version in VERSIONS:
        (expected[version],) = ReferenceEvaluator(model(version)).run(None, {INPUT: PIXEL})
    return Question(model=MODEL, input_name=INPUT, input=PIXEL, output_name=OUTPUT, expected=expected)


def ask(address: str, *, model: str = MODEL) -> Answer:
    """Ask for the best class, as a client does that wants a word and no numbers.

    Raises:
        DemoError: there is no answer.
    """
    client = tritonclient.http.InferenceServerClient(address)
    entry = tritonclient.http.InferInput(INPUT, list(PIXEL.shape), "FP32")
    entry.set_data_from_numpy(PIXEL)
    wanted = tritonclient.http.InferRequestedOutput(OUTPUT, class_count=1)
    try:
        answer = client.infer(model, [entry], outputs=[wanted])
    except (InferenceServerException, OSError) as error:
        raise DemoError(f"asked {address} for the colour of {PIXEL_NAME}: {error}") from error
    finally:
        client.close()
    score, _, colour = answer.as_numpy(OUTPUT).flat[0].decode().split(":")
    return Answer(version=int(answer.get_response()["model_version"]), colour=colour, score=float(score))
