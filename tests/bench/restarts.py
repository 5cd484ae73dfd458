"""Containers and pods come and go, with the operator at work and without."""

from __future__ import annotations

import dataclasses
import time
from typing import TYPE_CHECKING, Any

from tests.bench.finding import Change, Finding, judged
from tests.bench.ground import LONG_SECONDS, NEW, OLD, PODS, SERVER, is_ready, scale
from tests.bench.local import kill_triton, second_name

from load import Record, analysis

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from tests.bench.ground import Ground

    Object = dict[str, Any]

HELD_SECONDS = 8.0
"""So long the third pod gets its share of the requests."""
MUST = "0 failed"
MUST_WHEN_KILLED = "0 failed beyond the killed container's own connections"


@dataclasses.dataclass(frozen=True)
class Restart:
    """A row with the operator at work, and the same without."""

    what: str
    find: Callable[..., Finding]
    """Called with the ground, `what`, and whether the operator is `stopped`."""

    def with_operator(self, ground: Ground) -> Sequence[Finding]:
        """Run it with the operator at work."""
        ground.return_to(OLD, NEW)
        return [self.find(ground, what=self.what, stopped=False)]

    def without_operator(self, ground: Ground) -> Sequence[Finding]:
        """Run it when nobody is there who could help."""
        ground.return_to(OLD, NEW)
        with ground.operator_stopped():
            return [self.find(ground, what=f"{self.what}, operator stopped before", stopped=True)]


def _killed(ground: Ground, *, what: str, stopped: bool) -> Finding:
    victim, survivor = ground.stage.pods()
    name = victim["metadata"]["name"]
    back = 0.0

    def returned() -> None:
        found = ground.stage.kube.get("Pod", name)
        assert found["status"]["containerStatuses"][0]["restartCount"] > _restarts(victim)
        assert is_ready(found)

    def kill() -> None:
        nonlocal back
        kill_triton(victim)
        ground.stage.eventually(returned, within=LONG_SECONDS)
        back = time.monotonic()

    straight = ground.pod_streams([survivor])
    change = ground.under_load(kill, streams=[*ground.service_streams(), *straight])
    names = {stream.name for stream in straight}
    own = [
        record
        for record in analysis.cut_between(change.records, begin=change.began, end=back)
        if record.stream not in names
    ]
    more = [f"besides {len(own)} on the killed container's own connections"]
    return _judged(what, MUST_WHEN_KILLED, change, excused=own, more=more)


def _deleted(ground: Ground, *, what: str, stopped: bool) -> Finding:
    victim = ground.stage.pod_names()[0]

    def gone() -> None:
        assert ground.stage.kube.find("Pod", victim) is None

    def delete() -> None:
        ground.stage.kube.delete("Pod", victim)
        ground.stage.eventually(gone, within=LONG_SECONDS)
        ground.wait_pods()

    return _judged(what, MUST, ground.under_load(delete, streams=ground.service_streams()))


def _scaled(ground: Ground, *, what: str, stopped: bool) -> Finding:
    target = f"deployment/triton-{SERVER}" if stopped else f"tserver/{SERVER}"

    def there_and_back() -> None:
        scale(ground, target, PODS + 1)
        ground.wait_pods(PODS + 1)
        time.sleep(HELD_SECONDS)
        scale(ground, target, PODS)
        ground.wait_pods(PODS)

    return _judged(what, MUST, ground.under_load(there_and_back, streams=ground.service_streams()))


def _image_changed(ground: Ground, *, what: str, stopped: bool) -> Finding:
    own = ground.stage.cluster.images["triton-cpu"]
    other = own if ground.server()["spec"]["image"] != own else second_name(own)

    def set_image() -> None:
        ground.stage.kube.patch("TritonServer", SERVER, {"spec": {"image": other}})

    def roll() -> None:
        if stopped:
            path = "/spec/template/spec/containers/0/image"
            operations = [{"op": "replace", "path": path, "value": other}]
            ground.stage.kube.json_patch("Deployment", f"triton-{SERVER}", operations)
        else:
            set_image()
        ground.wait_pods(PODS, image=other)

    found = _judged(what, MUST, ground.under_load(roll, streams=ground.service_streams()))
    set_image()  # where the Deployment alone was changed, for the operator not to change it back
    return found


def _judged(
    what: str, must: str, change: Change, *, excused: Sequence[Record] = (), more: Sequence[str] = ()
) -> Finding:
    """Judge, and see that no pod took requests before it had the highest version."""
    behind = [record for record in analysis.unversioned(change.records) if record.answered == OLD]
    problems = [f"{len(behind)} requests without a version were answered by {OLD}"] if behind else []
    return judged(what, must, change, excused=excused, more=more, problems=problems)


def _restarts(pod: Object) -> int:
    return int(pod["status"]["containerStatuses"][0]["restartCount"])


RESTARTS = {
    "kill": Restart("a Triton container killed", _killed),
    "delete": Restart("a pod deleted", _deleted),
    "scale": Restart("replicas 2 → 3 → 2", _scaled),
    "image": Restart("image changed (rolling)", _image_changed),
}
