"""A cluster without kubelets, and the operator in a process of its own."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest
from tests.integration.controllers import controller_manager
from tests.integration.kube import Kube
from tests.integration.kubelet_double import KubeletDouble, kubelet_double
from tests.integration.operator.operator_process import OPERATOR_NAMESPACE, OperatorProcess
from tests.integration.operator.stage import Stage

if TYPE_CHECKING:
    from collections.abc import Iterator

    from tests.integration.apiserver import ApiServer


@pytest.fixture(scope="session")
def kubelet(api_server: ApiServer, tmp_path_factory: pytest.TempPathFactory) -> Iterator[KubeletDouble]:
    """Controllers, nodes and volumes."""
    directory = tmp_path_factory.mktemp("kubelet")
    with (
        controller_manager(api_server, directory),
        kubelet_double(api_server, directory / "double") as double,
    ):
        yield double


@pytest.fixture
def kube(api_server: ApiServer, kubelet: KubeletDouble, namespace: str) -> Iterator[Kube]:
    """A client in a namespace of its own, which is deleted afterwards."""
    client = Kube.admin(api_server, namespace=namespace)
    yield client
    client.delete("Namespace", namespace)
    client.close()


@pytest.fixture(scope="session")
def operator_process(
    api_server: ApiServer, kubelet: KubeletDouble, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[OperatorProcess]:
    """The operator; tests that end it start it again."""
    Kube.admin(api_server).create(
        {"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": OPERATOR_NAMESPACE}}
    )
    process = OperatorProcess(api_server, tmp_path_factory.mktemp("operator"))
    process.start()
    yield process
    process.stop()


@pytest.fixture
def stage(kube: Kube, kubelet: KubeletDouble, operator_process: OperatorProcess) -> Stage:
    """Everything that a scenario needs, with the operator at work."""
    operator_process.ensure_running()
    return Stage(kube=kube, kubelet=kubelet, operator=operator_process)
