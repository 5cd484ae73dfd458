"""TensorRT's messages in the user's words: a reason, what is wrong where, what to do next. Pure.

TensorRT tells a failed build by a `None` and lines of its log. The first error is the cause; what follows
it are consequences, and on a host without a GPU an error about CUDA after each.
"""

from __future__ import annotations

import dataclasses
import re
from collections.abc import Mapping, Sequence

from engine_builder.compilers.gpu import no_cuda
from engine_builder.contract import CompileOptions, Reason
from engine_builder.errors import JobError

_NOISE = re.compile(r"checkMacros\.cpp::catchCudaError")
_NO_CUDA = re.compile(r"CUDA initialization failure with error: (\d+)|\bcudaError (\d+)\b")
_WRAPPED = re.compile(r"Error Code \d+: [A-Za-z ]+ \((.*)\)$")
_ASSERTED = re.compile(r'.* && "([^"]+)"$')
"""A condition of its source code with the words for it."""
_WHERE = (
    re.compile(r"^\[[\w.]+:\d+: \w+\] |^\[[\w.]+::\w+::\d+\] "),
    re.compile(r" In \w+ at \S+:\d+$"),
    re.compile(r"\bAssertion failed: .*?: (?=[A-Z])"),
    re.compile(r"^Invalid Node - \S+ (?=\S)"),
)
_FILE = re.compile(r"(?:Failed to open file: |out of range for file: )(?:\S*/)?(\S+)")
_LONGEST = 600


@dataclasses.dataclass(frozen=True)
class Rule:
    """A text of TensorRT's that is known, and what it means; `{0}` is the pattern's first group."""

    pattern: re.Pattern[str]
    reason: Reason
    message: str


@dataclasses.dataclass(frozen=True)
class Refusal:
    """One error of the ONNX parser: the name of its code, its words, and the node that it is about."""

    code: str
    text: str
    node: int = -1
    node_name: str = ""
    operator: str = ""

    def __str__(self) -> str:
        if self.node < 0 and not self.node_name:
            return "the model"
        return f"node {self.node_name!r}" if self.node_name else f"node {self.node}"


def _rule(pattern: str, reason: Reason, message: str) -> Rule:
    return Rule(re.compile(pattern), reason, message)


_SMALLER = (
    "lower build.maxBatchSize or the max of build.profiles, raise build.workspacePercent, or take a GPU with "
    "more memory"
)
_PROFILE_OF = "see build.profiles: "

BUILD: Sequence[Rule] = (
    _rule(
        r"Could not find any implementation for node (.+?)\.?$",
        Reason.BUILDER_OUT_OF_MEMORY,
        "TensorRT found no implementation for node {0} that fits into the memory it may use: " + _SMALLER,
    ),
    _rule(
        r"no tactics to implement the operation within workspace limit|maxScratchSize",
        Reason.BUILDER_OUT_OF_MEMORY,
        "TensorRT found no implementation of an operation within the workspace: " + _SMALLER,
    ),
    _rule(
        r"(?i)out ?of ?memory|cudaErrorMemoryAllocation|cuda ?error 2\b|insufficient memory",
        Reason.BUILDER_OUT_OF_MEMORY,
        "the GPU's memory did not suffice for the build: " + _SMALLER,
    ),
    _rule(
        r"Cannot compile operation '([^']*)' for ([^:]+): (.+?)\.?$",
        Reason.UNSUPPORTED_PRECISION,
        "node '{0}' does not run on {1}: {2}; take another build.precision (FP16 runs on all GPUs)",
    ),
    _rule(
        r"HW-specific datatypes: ([\w, ]+?)\.?$",
        Reason.UNSUPPORTED_PRECISION,
        "the target's compute capability has no {0}: take another build.precision, or a newer GPU",
    ),
    _rule(
        r"no optimization profile has been defined",
        Reason.PROFILE_MISSING,
        "the model has free dimensions that no profile covers: list its inputs in build.profiles",
    ),
    _rule(
        r"Dynamic input tensor (\S+) is missing dimensions in profile (\d+)",
        Reason.PROFILE_MISSING,
        "build.profiles[{1}] says nothing of input '{0}', whose shape is free: list it",
    ),
    _rule(
        r"profile (\d+) is missing values for shape input tensor ([^\s.]+)",
        Reason.PROFILE_MISSING,
        "build.profiles[{0}] says nothing of input '{1}', which holds a shape: list its values",
    ),
    _rule(
        r"(Dimension mismatch for tensor .+|Dynamic-shaped input tensor .+|.*MIN ?<= ?OPT ?<= ?MAX.*)",
        Reason.INVALID_PROFILE,
        _PROFILE_OF + "{0}",
    ),
    _rule(
        r"Network must have at least one output",
        Reason.INVALID_MODEL,
        "the model has no outputs: the file is empty or no ONNX",
    ),
    _rule(
        r"BuildCanceled",
        Reason.CANCELLED,
        "the build was cancelled; the next attempt starts afresh",
    ),
)
"""What the builder says, in the order in which it is looked for."""

PARSE: Sequence[Rule] = (
    _rule(
        r"Plugin not found",
        Reason.UNSUPPORTED_OPERATOR,
        "TensorRT {version} has no operator {operator} ({node}): export the model with standard operators, "
        "or serve it with backend ONNXRuntime",
    ),
    _rule(
        r"[Nn]on-zero zero point|shiftIsAllZeros",
        Reason.UNSUPPORTED_PRECISION,
        "{node} quantises with a zero point other than 0: quantise symmetrically, or leave it to "
        "build.precision INT8",
    ),
    _rule(
        r"has type Int32 but must have type",
        Reason.UNSUPPORTED_PRECISION,
        "{node} dequantises INT32 (a quantised bias): quantise without biases, or leave it to "
        "build.precision INT8",
    ),
    _rule(
        r"convertOnnxWeights|Failed to import initializer",
        Reason.INVALID_MODEL,
        "the weights of the model cannot be read: {file} is missing or too short",
    ),
    _rule(
        r"Pre-opset 7 broadcasting",
        Reason.UNSUPPORTED_OPERATOR,
        "TensorRT {version} does not broadcast as ONNX of opset 6 and before does: convert the model to a "
        "later opset (onnx.version_converter), or serve it with backend ONNXRuntime",
    ),
    _rule(
        r"convertDtype\(|Failed to convert ONNX da?te type",
        Reason.UNSUPPORTED_OPERATOR,
        "TensorRT {version} lacks a type that {node} has, such as text: export the model without it, or "
        "serve it with backend ONNXRuntime",
    ),
    _rule(
        r"Input file cannot be found",
        Reason.ENGINE_MISSING,
        "the prepared model has gone from the store; will be tried again",
    ),
)
"""What the parser says in texts that are known."""

_CODES: Mapping[str, tuple[Reason, str]] = {
    "MODEL_DESERIALIZE_FAILED": (
        Reason.INVALID_MODEL,
        "TensorRT {version} cannot read the model: it is truncated or no ONNX",
    ),
    "MEM_ALLOC_FAILED": (
        Reason.OOM_KILLED,
        "reading the model ran out of memory: raise spec.builds.resources of the TritonServer",
    ),
    "INVALID_GRAPH": (Reason.INVALID_MODEL, "TensorRT {version} finds {node} wrong: {text}"),
    "INVALID_NODE": (Reason.INVALID_MODEL, "TensorRT {version} finds {node} ({operator}) wrong: {text}"),
    "INVALID_VALUE": (Reason.INVALID_MODEL, "TensorRT {version} finds {node} ({operator}) wrong: {text}"),
}
_UNSUPPORTED = (
    Reason.UNSUPPORTED_OPERATOR,
    (
        "TensorRT {version} does not support {operator} as {node} has it{why}: export the model with other "
        "operators, or serve it with backend ONNXRuntime"
    ),
)


def build_failure(errors: Sequence[str], *, version: str, options: CompileOptions) -> JobError:
    """Return why a build came to nothing, from the errors of TensorRT's log, oldest first."""
    told = [text for text in errors if not is_noise(text)]
    for text in told:
        for rule in BUILD:
            found = rule.pattern.search(clean(text)) or rule.pattern.search(text)  # some by their kind
            if found:
                return JobError(
                    rule.reason, rule.message.format(*found.groups("")) + _settings(rule, options)
                )
    if told:
        return JobError(Reason.BUILD_FAILED, f"TensorRT {version} cannot build the model: {clean(told[0])}")
    if errors:  # nothing but CUDA's own errors
        return no_builder(errors)
    return JobError(Reason.BUILD_FAILED, f"TensorRT {version} built nothing and said nothing")


def is_noise(text: str) -> bool:
    """Tell whether a line of TensorRT's log is about CUDA's absence and nothing else."""
    return _NOISE.search(text) is not None and "\n" not in text


def _settings(rule: Rule, options: CompileOptions) -> str:
    if rule.reason is not Reason.BUILDER_OUT_OF_MEMORY:
        return ""
    return f" (now workspacePercent {options.workspace_percent}, maxBatchSize {options.max_batch_size})"


def no_builder(lines: Sequence[str]) -> JobError:
    """Return why TensorRT does not even begin, from all lines of its log."""
    for text in lines:
        found = _NO_CUDA.search(text)
        if found:
            return no_cuda(int(found[1] or found[2]))
    said = clean(lines[0]) if lines else "it said nothing"
    return JobError(Reason.BUILD_FAILED, f"TensorRT does not begin: {said}")


def parse_failure(refusals: Sequence[Refusal], *, version: str, log: Sequence[str] = ()) -> JobError:
    """Return why the parser refuses a model; the first refusal decides, others of its kind are counted.

    A file that lacks is named in `log` only.
    """
    if not refusals:
        return JobError(Reason.INVALID_MODEL, f"TensorRT {version} refuses the model and does not say why")
    first = refusals[0]
    reason, template = _meaning(first)
    text, operator = clean(first.text), first.operator or "it"
    why = "" if text.strip("' ") in {"", "false"} else f" ({text})"
    lacking = next((found[1] for line in log if (found := _FILE.search(line))), "external data")
    message = template.format(
        version=version, node=first, operator=operator, text=text, why=why, file=lacking
    )
    others = {r.operator for r in refusals[1:] if r.operator and _meaning(r)[0] is reason} - {operator}
    if reason is Reason.UNSUPPORTED_OPERATOR and others:
        message += f"; the same holds for {', '.join(sorted(others))}"
    return JobError(reason, message)


def _meaning(refusal: Refusal) -> tuple[Reason, str]:
    for rule in PARSE:
        if rule.pattern.search(refusal.text):
            return rule.reason, rule.message
    if refusal.code.startswith("UNSUPPORTED"):
        return _UNSUPPORTED
    return _CODES.get(
        refusal.code, (Reason.BUILD_FAILED, "TensorRT {version} refuses {node} ({operator}): {text}")
    )


def clean(text: str) -> str:
    """Return TensorRT's words on one line, without places of its source code."""
    line = " ".join(part.strip() for part in text.splitlines() if not _NOISE.search(part)).strip()
    wrapped = _WRAPPED.search(line)
    line = wrapped[1] if wrapped else line
    for where in _WHERE:
        line = where.sub("", line)
    line = _ASSERTED.sub(r"\1", line)
    return line if len(line) <= _LONGEST else line[:_LONGEST] + "…"
