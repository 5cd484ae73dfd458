"""What the API server refuses, with a message that names the field and says what to do."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest
from tests.integration.crds.manifests import (
    ABSENT,
    OTHER_SHA,
    SHA,
    a_calibrated_engine,
    a_calibrated_model,
    a_model,
    a_named_model,
    a_repository,
    a_repository_with_storage,
    a_server,
    a_tensorrt_model,
    an_engine,
    changed,
    profile_up_to,
)

if TYPE_CHECKING:
    from tests.integration.apiserver import ApiServer
    from tests.integration.crds.manifests import Manifest

URI = "pvc://models/text/9.onnx"
NEW_NUMBER = "add a new version number instead"
NEW_MODEL = "create another InferenceModel and delete this one"
NEW_REPOSITORY = "create another ModelRepository and delete this one"
BY_OPERATOR = "the operator writes Engines"
RULES_OF_NAMES = "modelName may hold letters, digits"
VERSION = {"number": 3, "source": {"uri": URI}}

AN_INPUT = {"name": "x", "min": [1], "opt": [1], "max": [1]}
_PROFILE = "spec.versions[0].build.profiles[0].inputs[0]"


def a_profile(**shapes: list[int]) -> Manifest:
    """Return a build with a profile of one input."""
    return {"profiles": [{"inputs": [{"name": "x", **shapes}]}]}


# Base, what is changed in it, the new value, what the answer must contain.
Row = tuple[object, str, object, tuple[str, ...]]

BAD: list[Row] = [
    # names of an InferenceModel
    *(
        (a_model(), "spec.modelName", name, ("spec.modelName", RULES_OF_NAMES))
        for name in ("a/b", "..", "a..b", "text detection", ".text", "-text", "téxt", "text\n")
    ),
    (a_model(), "spec.modelName", "m" * 200, ("spec.modelName", "more than 128")),
    (a_model(), "spec.modelName", "", ("spec.modelName", "at least 1 char")),
    (a_model(), "spec.modelName", "text.candidate", ("spec.modelName", "must not end in '.candidate'")),
    (a_model(), "metadata.name", "m" * 129, ("metadata.name", "or set spec.modelName")),
    (a_model(), "metadata.name", "text.candidate", ("metadata.name", "or set spec.modelName")),
    (a_model(), "metadata.name", ".text", ("metadata.name",)),
    # backend and servers of an InferenceModel
    (a_model(), "spec.backend", "Caffe", ("spec.backend", "ONNXRuntime")),
    (a_model(), "spec.backend", ABSENT, ("spec.backend", "Required")),
    (a_model(), "spec.servers", [], ("spec.servers", "at least 1 item")),
    (a_model(), "spec.servers", ["a10", "a10"], ("spec.servers[1]", "Duplicate")),
    (a_model(), "spec.servers", ["A10"], ("spec.servers[0]",)),
    (a_model(), "spec.servers", ["other/a10"], ("spec.servers[0]",)),
    (a_model(), "spec.servers", ["a" * 64], ("spec.servers[0]", "more than 63")),
    (a_model(), "spec.servers", [f"s{n}" for n in range(17)], ("spec.servers", "at most 16 items")),
    # versions of an InferenceModel
    (a_model(), "spec.versions", ABSENT, ("spec.versions", "Required")),
    (a_model(), "spec.versions", [], ("spec.versions", "at least 1 item")),
    (a_model(), "spec.versions", [VERSION, VERSION], ("spec.versions[1]", "Duplicate", '"number":3')),
    (
        a_model(),
        "spec.versions",
        [VERSION | {"number": n} for n in range(1, 18)],
        ("spec.versions", "at most 16 items"),
    ),
    (a_model(), "spec.versions.0.number", 0, ("spec.versions[0].number", "greater than or equal to 1")),
    (a_model(), "spec.versions.0.number", -1, ("spec.versions[0].number", "greater than or equal to 1")),
    (a_model(), "spec.versions.0.number", 2**31, ("spec.versions[0].number",)),
    (a_model(), "spec.versions.0.number", "1", ("spec.versions[0].number", "must be of type integer")),
    (a_model(), "spec.versions.0.number", ABSENT, ("spec.versions[0].number", "Required")),
    (a_model(), "spec.versions.0.source", ABSENT, ("spec.versions[0].source", "Required")),
    (a_model(), "spec.versions.0.source.uri", ABSENT, ("spec.versions[0].source.uri", "Required")),
    *(
        (
            a_model(),
            "spec.versions.0.source.uri",
            uri,
            ("spec.versions[0].source.uri", "pvc://<claim>/<path>"),
        )
        for uri in (
            "/models/1.onnx",
            "s3://b",
            "s3:///k",
            "http://models.example/1.onnx",
            "https://user:password@models.example/1.onnx",
            "oci://registry.example/text",
            "ftp://models.example/1.onnx",
            "pvc://models",
            "pvc://models/",
            "pvc:///1.onnx",
            "pvc://A/x",
        )
    ),
    *(
        (
            a_model(),
            "spec.versions.0.source.uri",
            uri,
            ("spec.versions[0].source.uri", "must not contain '..'"),
        )
        for uri in ("pvc://models/../1.onnx", "pvc://models/a/../../etc", "pvc://models/a/..")
    ),
    (a_model(), "spec.versions.0.source.uri", URI + "x" * 1024, ("spec.versions[0].source.uri", "1024")),
    *(
        (
            a_model(),
            "spec.versions.0.source.sha256",
            sha,
            ("spec.versions[0].source.sha256", "64 lower-case hex"),
        )
        for sha in ("", "a" * 63, "A" * 64, "g" * 64)
    ),
    (
        a_model(),
        "spec.versions.0.source.secretName",
        "s3-read",
        ("spec.versions[0].source.secretName", "a claim needs none"),
    ),
    (
        a_model(),
        "spec.versions.0.source",
        {"uri": "s3://b/1.onnx", "secretName": "S3"},
        ("spec.versions[0].source.secretName",),
    ),
    (a_model(), "spec.versions.0.build", {"maxBatchSize": 0}, ("spec.versions[0].build.maxBatchSize",)),
    (a_model(), "spec.versions.0.build", {"maxBatchSize": 65537}, ("spec.versions[0].build.maxBatchSize",)),
    *(
        (a_model(), "spec.versions.0.build", {"precision": name}, ("spec.versions", "FP32, FP16 and INT8"))
        for name in ("TF32", "BF16", "FP8")
    ),
    (
        changed(a_model(), "spec.backend", "OpenVINO"),
        "spec.versions.0.build",
        {"precision": "BF16"},
        ("spec.versions", "OpenVINO serve"),
    ),
    (a_model(), "spec.versions.0.build", {"precision": "FP64"}, ("spec.versions[0].build.precision",)),
    *(
        (a_model(), "spec.versions.0.build", {"keepIO": False, **build}, ("build.keepIO", "FP16 alone"))
        for build in ({}, {"precision": "INT8"})
    ),
    *(
        (a_model(), "spec.versions.0.build", {field: value}, (f"build.{field} is for backend TensorRT",))
        for field, value in (
            ("profiles", [{"inputs": [{"name": "x", "min": [1], "opt": [1], "max": [1]}]}]),
            ("workspacePercent", 70),
            ("optimizationLevel", 3),
            ("portability", "Exact"),
        )
    ),
    *(
        (a_model(), "spec.versions.0.build", {field: value}, (f"spec.versions[0].build.{field}",))
        for field, values in (
            ("workspacePercent", (0, 101)),
            ("optimizationLevel", (-1, 6)),
            ("portability", ("Any",)),
            ("profiles", ([], [{"inputs": []}], [{}])),
        )
        for value in values
    ),
    *(
        (a_model(), "spec.versions.0.build", a_profile(**shapes), (_PROFILE, said))
        for shapes, said in (
            ({"min": [1, 3], "opt": [1, 3], "max": [1, 3, 8]}, "equally many dimensions"),
            ({"min": [1], "opt": [1, 3], "max": [1, 3]}, "equally many dimensions"),
            ({"min": [2, 3], "opt": [1, 3], "max": [4, 3]}, "min <= opt <= max"),
            ({"min": [1, 3], "opt": [4, 3], "max": [2, 3]}, "min <= opt <= max"),
            ({"min": [1] * 8, "opt": [1] * 8, "max": [1] * 7 + [0]}, "min <= opt <= max"),
            ({"min": [-1], "opt": [1], "max": [1]}, "min[0]"),
            ({"min": [1] * 9, "opt": [1] * 9, "max": [1] * 9}, "at most 8 items"),
            ({"min": [], "opt": [1], "max": [1]}, "at least 1 item"),
        )
    ),
    (
        a_model(),
        "spec.versions.0.build",
        {"precision": "FP16", "calibration": {"generated": True}},
        ("spec.versions[0].build.calibration", "for precision INT8 alone"),
    ),
    *(
        (
            a_model(),
            "spec.versions.0.build",
            {"precision": "INT8", "calibration": calibration},
            ("spec.versions[0].build.calibration", text),
        )
        for calibration, text in (
            ({}, "needs either uri"),
            ({"generated": False}, "needs either uri"),
            ({"generated": True, "uri": "pvc://models/c.npz"}, "needs either uri"),
            ({"generated": True, "sha256": SHA}, "set uri as well"),
            ({"uri": "pvc://models/c.onnx"}, "pvc://<claim>/<path>.npz"),
            ({"uri": "http://example.com/c.npz"}, "pvc://<claim>/<path>.npz"),
            ({"uri": "pvc://models/c.npz", "secretName": "s3-read"}, "a claim need none"),
            ({"generated": True, "secretName": "s3-read"}, "for files from elsewhere"),
            ({"uri": "pvc://models/../c.npz"}, "must not contain '..'"),
            ({"uri": "pvc://models/c.npz", "sha256": "x"}, "64 lower-case hex digits"),
        )
    ),
    (
        a_model(),
        "spec.versions.0.build",
        {"profiles": [{"inputs": [AN_INPUT, AN_INPUT]}]},
        ("spec.versions[0].build.profiles[0].inputs[1]", "Duplicate"),
    ),
    # how an InferenceModel is served and checked
    (a_model(), "spec.serving.maxBatchSize", 9, ("spec.serving", "above build.maxBatchSize of a version")),
    (
        a_model(),
        "spec.serving",
        {"dynamicBatching": {"preferredBatchSizes": [9]}},
        ("spec.serving", "preferredBatchSizes has a size above build.maxBatchSize"),
    ),
    (a_tensorrt_model(), "spec.serving.maxBatchSize", 21, ("spec.serving", "above build.maxBatchSize")),
    (
        a_tensorrt_model(),
        "spec.serving",
        {"dynamicBatching": {"preferredBatchSizes": [21]}},
        ("spec.serving", "preferredBatchSizes has a size above build.maxBatchSize"),
    ),
    (a_model(), "spec.serving.maxBatchSize", -1, ("spec.serving.maxBatchSize",)),
    (
        a_model(),
        "spec.serving",
        {"maxBatchSize": 8, "dynamicBatching": {"preferredBatchSizes": [4, 16]}},
        ("spec.serving.dynamicBatching.preferredBatchSizes", "above serving.maxBatchSize"),
    ),
    (
        a_model(),
        "spec.serving",
        {"maxBatchSize": 0, "dynamicBatching": {}},
        ("spec.serving.dynamicBatching", "leave it out, or set serving.maxBatchSize"),
    ),
    (a_model(), "spec.serving.instances", [{"count": 0}], ("spec.serving.instances[0].count",)),
    (
        a_model(),
        "spec.serving.instances",
        [{"kind": "TPU"}],
        ("spec.serving.instances[0].kind", '"Auto", "CPU"'),
    ),
    (a_model(), "spec.serving.parameters", {"": "x"}, ("spec.serving.parameters", "a key has 1 to 256")),
    (
        a_model(),
        "spec.serving.parameters",
        {"k" * 257: "x"},
        ("spec.serving.parameters", "a key has 1 to 256"),
    ),
    (
        a_model(),
        "spec.serving.parameters",
        {"triton-operator.io/config": "x"},
        ("spec.serving.parameters", "does not start with 'triton-operator.io/'"),
    ),
    *(
        (a_model(), "spec.check.minimumCosine", cosine, ("spec.check.minimumCosine", "decimal from 0 to 1"))
        for cosine in ("1.1", "-0.5", ".99", "0,99", "high")
    ),
    (a_model(), "spec.check.minimumCosine", 0.99, ("spec.check.minimumCosine", "must be of type string")),
    *(
        (
            a_model(),
            "spec.serving.labels",
            {"y": [label]},
            ("spec.serving.labels[y][0]", "a label is one line"),
        )
        for label in ("a\nb", "a\n", "a\r", "\n")
    ),
    (a_model(), "spec.serving.labels", {"": ["a"]}, ("spec.serving.labels", "the name of an output")),
    (a_model(), "spec.serving.labels", {"y" * 257: ["a"]}, ("spec.serving.labels", "the name of an output")),
    (a_model(), "spec.serving.labels", {"y": []}, ("spec.serving.labels.y", "at least 1 item")),
    (a_model(), "spec.serving.labels", {"y": ["a"] * 4097}, ("spec.serving.labels.y", "at most 4096 items")),
    (a_model(), "spec.serving.labels", {"y": ["l" * 257]}, ("spec.serving.labels.y[0]", "more than 256")),
    (
        a_model(),
        "spec.serving.labels",
        {f"y{n}": ["a"] for n in range(17)},
        ("spec.serving.labels", "at most 16 items"),
    ),
    (a_model(), "spec.check.samples", {}, ("spec.check.samples.uri", "Required")),
    *(
        (a_model(), "spec.check.samples.uri", uri, ("spec.check.samples.uri", "pvc://<claim>/<path>.npz"))
        for uri in ("pvc://models/samples.json", "oci://r/k.npz", "pvc://models/", "samples.npz")
    ),
    (
        a_model(),
        "spec.check.samples",
        {"uri": "pvc://models/s.npz", "secretName": "s3-read"},
        ("spec.check.samples.secretName", "a claim needs none"),
    ),
    (
        a_model(),
        "spec.check.samples.uri",
        "pvc://models/../samples.npz",
        ("spec.check.samples.uri", "must not contain '..'"),
    ),
    (
        a_model(),
        "spec.check.samples",
        {"uri": "pvc://models/samples.npz", "sha256": "A" * 64},
        ("spec.check.samples.sha256", "64 lower-case hex"),
    ),
    (a_model(), "spec.suspend", "yes", ("spec.suspend", "must be of type boolean")),
    # a TritonServer
    (a_server(), "metadata.name", "s" * 51, ("metadata.name", "at most 50", "choose another name")),
    (a_server(), "metadata.name", "a.b", ("metadata.name", "no dot", "choose another name")),
    (a_server(), "spec.image", ABSENT, ("spec.image", "Required")),
    (a_server(), "spec.image", "two words", ("spec.image",)),
    (a_server(), "spec.release", "26.7", ("spec.release", "such as '26.07'")),
    (a_server(), "spec.replicas", -1, ("spec.replicas",)),
    (a_server(), "spec.replicas", 1001, ("spec.replicas",)),
    (a_server(), "spec.shmSize", "-1Gi", ("spec.shmSize",)),
    (a_server(), "spec.resources", {"limits": {"cpu": "many"}}, ("spec.resources.limits.cpu",)),
    (a_server(), "spec.imagePullPolicy", "Sometimes", ("spec.imagePullPolicy", "IfNotPresent")),
    (
        a_server(),
        "spec.imagePullSecrets",
        [{"name": "a"}, {"name": "a"}],
        ("spec.imagePullSecrets[1]", "Duplicate"),
    ),
    (a_server(), "spec.tolerations", [{"effect": "Never"}], ("spec.tolerations[0].effect", "NoSchedule")),
    (a_server(), "spec.service", {"type": "ExternalName"}, ("spec.service.type", "ClusterIP")),
    (a_server(), "spec.service", {"name": "1st"}, ("spec.service.name",)),
    (a_server(), "spec.service", {"name": "s" * 59}, ("spec.service.name", "58")),
    (a_server(), "spec.allowedBackends", [], ("spec.allowedBackends",)),
    (a_server(), "spec.allowedBackends", ["Caffe"], ("spec.allowedBackends[0]", "ONNXRuntime")),
    *(
        (a_server(), "spec.args", [argument], ("spec.args[0]", "remove this argument"))
        for argument in (
            "--model-control-mode=none",
            "--model-control-mode",
            "--model-con=none",
            "--load-model=*",
            "--model-repository=/etc",
            "--grpc-restricted-protocol=",
            "--http-restricted-api=health:a=b",
            "--exit-on-error=true",
            "--http-port=1",
            "--grpc-port=1",
            "--metrics-port=1",
            "--allow-grpc=false",
            "--id=triton",
            "--id",
            "--grpc-max-connection-age=1",
            "--",
        )
    ),
    (
        a_server(),
        "spec.args",
        ["--log-verbose=1", "--http-port", "1"],
        ("spec.args[1]", "remove this argument"),
    ),
    (
        a_server(),
        "spec.env",
        [{"name": "TRITON_CONTROL_KEY", "value": "x"}],
        ("spec.env[0].name", "set by the operator"),
    ),
    (
        a_server(),
        "spec.env",
        [{"name": "POD_NAME", "value": "x"}],
        ("spec.env[0].name", "set by the operator"),
    ),
    *(
        (a_server(), "spec.gpu", {"resource": resource}, ("spec.gpu.resource", "such as nvidia.com/gpu"))
        for resource in ("gpu", "nvidia.com/", "/gpu", "nvidia.com/gpu/x")
    ),
    (a_server(), "spec.gpu", {"count": 0}, ("spec.gpu.count", "to 1")),
    (a_server(), "spec.gpu", {"product": "NVIDIA A10"}, ("spec.gpu.product", "write '-' for blanks")),
    *(
        (
            a_server(),
            "spec.gpu",
            {"computeCapability": capability},
            ("spec.gpu.computeCapability", "such as '8.6'"),
        )
        for capability in ("8", "86", "8.6.1", "sm86", "0.5")
    ),
    (a_server(), "spec.gpu", {"computeCapability": 8.6}, ("spec.gpu.computeCapability", "of type string")),
    (a_server(), "spec.gpu", {"memoryMiB": -1}, ("spec.gpu.memoryMiB",)),
    *(
        (
            changed(a_server(), "spec.gpu", {}),
            "spec.resources",
            {part: {"nvidia.com/gpu": 1}},
            (f"spec.resources.{part}", "remove it there, gpu.count says"),
        )
        for part in ("limits", "requests")
    ),
    (a_server(), "spec.builds", {}, ("spec.builds", "for servers with GPUs")),
    *(
        (changed(a_server(), "spec.gpu", {}), "spec.builds", builds, (f"spec.builds.{field}", said))
        for builds, field, said in (
            ({"maxConcurrent": 0}, "maxConcurrent", "to 1"),
            ({"timeoutSeconds": 0}, "timeoutSeconds", "to 1"),
            ({"queueName": "A B"}, "queueName", "a-z0-9"),
            ({"whenNoFreeGPU": "Preempt"}, "whenNoFreeGPU", "BorrowReplica"),
        )
    ),
    (a_server(), "spec.compilerImage", "two words", ("spec.compilerImage",)),
    (a_server(), "spec.loads", {"maxConcurrent": 0}, ("spec.loads.maxConcurrent", "to 1")),
    (a_server(), "spec.loads", {"maxConcurrent": 1001}, ("spec.loads.maxConcurrent", "to 1000")),
    (a_server(), "spec.loads", {"timeoutSeconds": 0}, ("spec.loads.timeoutSeconds", "to 1")),
    (a_server(), "spec.loads", {"timeoutSeconds": 86401}, ("spec.loads.timeoutSeconds", "to 86400")),
    *(
        (a_server(), "spec.update", update, ("spec.update", "cannot both be 0", "raise maxSurge"))
        for update in (
            {"maxSurge": 0},
            {"maxSurge": 0, "maxUnavailable": 0},
            {"maxSurge": "0%", "maxUnavailable": "0%"},
            {"maxSurge": "0%", "maxUnavailable": 0},
        )
    ),
    *(
        (a_server(), "spec.update.maxSurge", most, ("spec.update.maxSurge",))
        for most in (-1, 1001, "101%", "-1%", "1", "", "many", 0.5, "01%")
    ),
    *(
        (a_server(), "spec.disruption.maxUnavailable", most, ("spec.disruption.maxUnavailable",))
        for most in (-1, "101%", "1", True)
    ),
    (a_server(), "spec.shutdown", {"leaveSeconds": -1}, ("spec.shutdown.leaveSeconds", "to 0")),
    (a_server(), "spec.shutdown", {"leaveSeconds": 601}, ("spec.shutdown.leaveSeconds", "to 600")),
    (a_server(), "spec.shutdown", {"exitTimeoutSeconds": 0}, ("spec.shutdown.exitTimeoutSeconds", "to 1")),
    (
        a_server(),
        "spec.shutdown",
        {"exitTimeoutSeconds": 3601},
        ("spec.shutdown.exitTimeoutSeconds", "to 3600"),
    ),
    (a_server(), "spec.env", [{"name": "A=B"}], ("spec.env[0].name",)),
    (a_server(), "spec.env", [{"name": "A"}, {"name": "A"}], ("spec.env[1]", "Duplicate")),
    # a ModelRepository
    (a_repository(), "metadata.name", "r" * 51, ("metadata.name", "at most 50", "choose another name")),
    (a_repository(), "spec.claimName", ABSENT, ("exactly one of claimName", "storage")),
    (a_repository(), "spec.storage", {"size": "1Gi"}, ("exactly one of claimName", "storage")),
    (a_repository(), "spec.claimName", "Models", ("spec.claimName",)),
    (a_repository_with_storage(), "spec.storage.size", ABSENT, ("spec.storage.size", "Required")),
    (a_repository_with_storage(), "spec.storage.size", "big", ("spec.storage.size",)),
    (
        a_repository_with_storage(),
        "spec.storage.accessModes",
        ["ReadOnlyMany"],
        ("spec.storage.accessModes[0]",),
    ),
    *(
        (a_repository(), "spec.engineRetention", text, ("spec.engineRetention", "such as 168h"))
        for text in ("7d", "168", "h", "-1h", "1h ", "")
    ),
    *(
        (a_repository(), "spec.allowedHosts", [host], ("spec.allowedHosts", "no scheme and no path"))
        for host in ("https://models.example", "models.example/a", "MODELS", "*", "user@host", "a:b")
    ),
    (a_repository(), "spec.allowedHosts", ["a", "a"], ("spec.allowedHosts[1]", "Duplicate")),
    (a_repository(), "spec.allowedSecrets", ["S3"], ("spec.allowedSecrets[0]",)),
    *(
        (a_repository(), "spec.maxSourceSize", size, ("spec.maxSourceSize", "such as 64Gi"))
        for size in ("big", "1e9", "0Gi", "64")
    ),
    (a_repository(), "spec.prepare", {"timeoutSeconds": 0}, ("spec.prepare.timeoutSeconds",)),
    # an Engine
    (an_engine(), "metadata.name", "mine", ("metadata.name", BY_OPERATOR)),
    (an_engine(), "spec.source.sha256", ABSENT, ("spec.source.sha256", "Required")),
    (an_engine(), "spec.release", "26.07", ("an Engine of TensorRT", BY_OPERATOR)),
    (an_engine(), "spec.from", "onnxruntime-1", ("made from another Engine", BY_OPERATOR)),
]

CHANGES: list[Row] = [
    # what a version means
    (a_model(), "spec.versions.0.source.sha256", OTHER_SHA, ("versions[0].source.sha256", NEW_NUMBER)),
    (a_model(), "spec.versions.0.source.sha256", ABSENT, ("versions[0].source.sha256", NEW_NUMBER)),
    (a_model(), "spec.versions.1.source.sha256", SHA, ("versions[1].source.sha256", NEW_NUMBER)),
    (a_model(), "spec.versions.1.source.uri", URI, ("versions[1].source.uri", NEW_NUMBER)),
    (a_model(), "spec.versions.0.build", {"maxBatchSize": 4}, ("versions[0].build", NEW_NUMBER)),
    (a_model(), "spec.versions.1.build", {"maxBatchSize": 16}, ("versions[1].build", NEW_NUMBER)),
    (a_model(), "spec.versions.0.build", {"precision": "FP16"}, ("versions[0].build", NEW_NUMBER)),
    (a_model(), "spec.versions.1.build", ABSENT, ("versions[1].build", NEW_NUMBER)),
    *(
        (a_tensorrt_model(), f"spec.versions.0.build.{option}", value, ("versions[0].build", NEW_NUMBER))
        for option, value in (
            ("maxBatchSize", 16),
            ("profiles", ABSENT),
            ("profiles", [profile_up_to(20), profile_up_to(8)]),
            ("workspacePercent", 50),
        )
    ),
    *(
        (
            a_calibrated_model(),
            f"spec.versions.0.build.calibration{field}",
            value,
            ("versions[0].build", NEW_NUMBER),
        )
        for field, value in (("", ABSENT), (".uri", "s3://data/other.npz"), (".sha256", SHA))
    ),
    (
        a_model(),
        "spec.versions",
        [*reversed(changed(a_model(), "spec.versions.0.source.sha256", OTHER_SHA)["spec"]["versions"])],
        ("versions[1].source.sha256", NEW_NUMBER),
    ),
    # identity of a model
    (a_model(), "spec.modelName", "other", ("spec.modelName", NEW_MODEL)),
    (a_named_model(), "spec.modelName", "other", ("spec.modelName", NEW_MODEL)),
    (a_named_model(), "spec.modelName", ABSENT, ("spec.modelName", NEW_MODEL)),
    # a TritonServer
    (a_server(), "spec.repository", "other", ("spec.repository", "create another TritonServer")),
    # a ModelRepository
    (a_repository(), "spec.claimName", "other", ("spec.claimName", NEW_REPOSITORY)),
    (a_repository(), "spec", {"storage": {"size": "1Gi"}}, ("spec.claimName", NEW_REPOSITORY)),
    (a_repository_with_storage(), "spec", {"claimName": "models"}, ("spec.claimName", NEW_REPOSITORY)),
    (a_repository_with_storage(), "spec.storage.size", "20Gi", ("spec.storage", NEW_REPOSITORY)),
    (a_repository_with_storage(), "spec.storage.className", "other", ("spec.storage", NEW_REPOSITORY)),
    (a_repository_with_storage(), "spec.storage.className", ABSENT, ("spec.storage", NEW_REPOSITORY)),
    # an Engine
    (an_engine(), "spec.build", {"precision": "FP16"}, ("spec.build", BY_OPERATOR)),
    (a_calibrated_engine(), "spec.build.calibration.sha256", OTHER_SHA, ("spec.build", BY_OPERATOR)),
    (a_calibrated_engine(), "spec.build.precision", "FP16", ("spec.build", BY_OPERATOR)),
    (an_engine(), "spec.key", an_engine()["spec"]["key"][:-1] + "1", ("spec.key", BY_OPERATOR)),
    (an_engine(), "spec.repository", "other", ("spec.repository", BY_OPERATOR)),
    (an_engine(), "spec.source.sha256", OTHER_SHA, ("spec.source.sha256", BY_OPERATOR)),
    (an_engine(), "spec.prepareVersion", 2, ("spec.prepareVersion", BY_OPERATOR)),
]


def _name(value: object) -> str:
    if isinstance(value, dict) and "kind" in value:
        return str(value["kind"])
    return repr(value)[:40] if not isinstance(value, tuple) else ""


@pytest.mark.parametrize(("base", "path", "value", "expected"), BAD, ids=_name)
def test_bad_input_is_refused_and_named(
    api_server: ApiServer, *, base: Manifest, path: str, value: object, expected: tuple[str, ...]
) -> None:
    answer = api_server.kubectl("apply", "--dry-run=server", "-f", "-", manifest=changed(base, path, value))

    assert answer.returncode != 0, answer.stdout
    for text in expected:
        assert text in answer.stderr


@pytest.mark.parametrize(("base", "path", "value", "expected"), CHANGES, ids=_name)
def test_forbidden_change_is_refused_and_named(
    api_server: ApiServer,
    namespace: str,
    *,
    base: Manifest,
    path: str,
    value: object,
    expected: tuple[str, ...],
) -> None:
    created = api_server.kubectl("create", "-n", namespace, "-f", "-", manifest=base)
    assert created.returncode == 0, created.stderr

    answer = api_server.kubectl("replace", "-n", namespace, "-f", "-", manifest=changed(base, path, value))

    assert answer.returncode != 0, answer.stdout
    for text in expected:
        assert text in answer.stderr


def test_backend_of_a_model_cannot_change(api_server: ApiServer, namespace: str) -> None:
    model = a_model()
    in_namespace = ("-n", namespace, "-f", "-")
    assert api_server.kubectl("create", *in_namespace, manifest=model).returncode == 0

    answer = api_server.kubectl("replace", *in_namespace, manifest=changed(model, "spec.backend", "TensorRT"))

    assert answer.returncode != 0
    assert "spec.backend: Forbidden: backend cannot change" in answer.stderr
    assert NEW_MODEL in answer.stderr


def test_options_of_tensorrt_are_accepted_for_its_backend(api_server: ApiServer) -> None:
    inputs = [
        {"name": f"x{n}", "min": [0] + [1] * 7, "opt": [8] + [640] * 7, "max": [16] + [640] * 7}
        for n in range(32)
    ]
    build = {
        "profiles": [{"inputs": inputs}] * 8,
        "workspacePercent": 100,
        "optimizationLevel": 0,
        "portability": "AmperePlus",
    }
    version = {"source": {"uri": URI}, "build": build}
    model = changed(a_tensorrt_model(), "spec.versions", [version | {"number": n} for n in range(1, 9)])
    model = changed(model, "spec.serving", {"maxBatchSize": 16})

    answer = api_server.kubectl("create", "--dry-run=server", "-f", "-", manifest=model)

    assert answer.returncode == 0, answer.stderr
