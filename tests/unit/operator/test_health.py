from __future__ import annotations

import aiohttp
from prometheus_client.parser import text_string_to_metric_families

from triton_operator.clients.objects import DEPLOYMENT
from triton_operator.health import serve
from triton_operator.metrics import Metrics


async def answer(port: int, path: str) -> tuple[int, str]:
    async with aiohttp.ClientSession() as session, session.get(f"http://127.0.0.1:{port}{path}") as response:
        return response.status, await response.text()


async def test_ready_says_what_is_missing() -> None:
    problem: str | None = "not all objects were seen yet"
    async with serve(Metrics(), listen="127.0.0.1:0", ready={"watches": lambda: problem}) as port:
        assert await answer(port, "/healthz") == (200, "ok\n")
        assert await answer(port, "/readyz") == (503, "watches: not all objects were seen yet\n")
        problem = None
        assert await answer(port, "/readyz") == (200, "ok\n")


async def test_metrics_are_served_in_the_text_format() -> None:
    metrics = Metrics(version="0.1.0")
    metrics.reconciled("InferenceModel", "done", 0.2)
    metrics.queue_waited("InferenceModel", 0.001)
    metrics.retried("InferenceModel")
    metrics.api_write("apply", DEPLOYMENT)
    metrics.built("ONNXRuntime", "Succeeded", 3.5)
    metrics.loaded("load", "done", 0.1)
    metrics.tree_written("done")
    metrics.checked("Succeeded")
    metrics.leading(True)
    metrics.watch_queue(depth=lambda: 4, running=lambda: 2)
    async with serve(metrics, listen="127.0.0.1:0") as port:
        status, text = await answer(port, "/metrics")
    assert status == 200
    samples = {
        (sample.name, *sorted(sample.labels.values())): sample.value
        for family in text_string_to_metric_families(text)
        for sample in family.samples
    }
    assert samples["triton_operator_reconciles_total", "InferenceModel", "done"] == 1
    assert samples["triton_operator_queue_retries_total", "InferenceModel"] == 1
    assert samples["triton_operator_api_writes_total", "Deployment", "apply"] == 1
    assert samples["triton_operator_builds_total", "ONNXRuntime", "Succeeded"] == 1
    assert samples["triton_operator_loads_total", "done", "load"] == 1
    assert samples["triton_operator_tree_writes_total", "done"] == 1
    assert samples["triton_operator_checks_total", "Succeeded"] == 1
    assert samples["triton_operator_queue_depth",] == 4
    assert samples["triton_operator_queue_running",] == 2
    assert samples["triton_operator_leader",] == 1
    assert samples["triton_operator_build_info", "0.1.0"] == 1


def test_every_metric_of_ours_has_the_prefix_and_a_help_text() -> None:
    ours = [f for f in Metrics().registry.collect() if not f.name.startswith(("process_", "python_"))]
    assert len(ours) >= 14
    for family in ours:
        assert family.name.startswith("triton_operator_")
        assert family.documentation.endswith(".")
