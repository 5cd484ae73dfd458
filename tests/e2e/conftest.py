"""The operator as users have it: the chart installed on a cluster with real nodes, and real Triton pods.

CLUSTER, KUBECONFIG and IMAGES say where; see `cluster.connected`. Tests run alone and in any order,
but for those marked `last`, which judge the whole run.
"""

from __future__ import annotations

import secrets
import sys
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from tests.e2e.audit import AuditLog
    from tests.e2e.cluster import Cluster
    from tests.e2e.installation import Installation
    from tests.e2e.stage import Stage

ROOT = Path(__file__).resolve().parents[2]
sys.path.insert(0, str(ROOT / "hack"))  # `demo` is run from a path and never installed

TEST_SECONDS = 300
FOLDER = Path(__file__).parent


def pytest_configure(config: pytest.Config) -> None:
    """Make the marker known."""
    config.addinivalue_line("markers", "last(number): run after all others, in the order of the numbers")


@pytest.hookimpl(trylast=True)
def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Put those that judge the whole run at its end; builds of images don't count as a test's time."""
    for item in items:
        if FOLDER in item.path.parents:
            item.add_marker(pytest.mark.timeout(TEST_SECONDS, func_only=True))
    items.sort(key=_number)


def _number(item: pytest.Item) -> int:
    mark = item.get_closest_marker("last")
    return int(mark.args[0]) if mark else 0


@pytest.fixture(scope="session")
def cluster() -> Iterator[Cluster]:
    """The cluster, with our images on its nodes."""
    from tests.e2e.cluster import connected

    with connected() as found:
        yield found


@pytest.fixture(scope="session")
def installation(cluster: Cluster) -> Installation:
    """The chart, installed or upgraded, with the operator at work."""
    from tests.e2e.installation import install
    from tests.e2e.stage import remove_leftovers

    remove_leftovers()
    return install(cluster)


@pytest.fixture(scope="session")
def shared_uses() -> dict[str, AuditLog]:
    """Further operators that tests ran, and the log since each began: what they use counts too."""
    return {}


@pytest.fixture(scope="session")
def whole_run(request: pytest.FixtureRequest) -> bool:
    """Whether every file of this folder is part of the run."""
    present = {item.path.name for item in request.session.items if FOLDER in item.path.parents}
    chosen = bool(request.config.getoption("keyword") or request.config.getoption("markexpr"))
    nodes = any("::" in argument for argument in request.config.args)
    return not (chosen or nodes) and present == {path.name for path in FOLDER.glob("test_*.py")}


@pytest.fixture(scope="session")
def new_stage(cluster: Cluster, installation: Installation) -> Iterator[Callable[[str], Stage]]:
    """Makes a stage in a namespace of its own, and removes what was made at the end."""
    from tests.e2e.stage import Stage

    made: list[Stage] = []

    def make(name: str) -> Stage:
        stage = Stage.create(cluster, installation, f"e2e-{name}-{secrets.token_hex(3)}")
        made.append(stage)
        return stage

    yield make
    for stage in made:
        stage.leave()


@pytest.fixture
def stage(new_stage: Callable[[str], Stage], request: pytest.FixtureRequest) -> Iterator[Stage]:
    """A stage for one test alone."""
    found = new_stage(request.node.path.stem.removeprefix("test_").replace("_", "-"))
    yield found
    found.leave()


@pytest.fixture(scope="session")
def shared(new_stage: Callable[[str], Stage]) -> Stage:
    """Two Triton pods on two nodes that serve two nets; no test breaks it."""
    found = new_stage("shared")
    found.set_up(replicas=2)
    found.serve_nets()
    return found


@pytest.fixture
def guest(shared: Stage) -> Iterator[Stage]:
    """The shared stage; models that a test adds are taken away again."""
    from tests.e2e.stage import BAD_PREFIX, NETS

    yield shared
    added = {model["metadata"]["name"] for model in shared.kube.list("InferenceModel")} - set(NETS)
    shared.discard(*(name for name in added if not name.startswith(BAD_PREFIX)))
