"""Tell what happens in the cluster: one line for each change of a condition, Event, Job or Pod."""

import re
import time
from collections.abc import Iterator
from dataclasses import dataclass

from rich.console import Console
from rich.text import Text

from demo.cluster import KINDS, Object, Snapshot, condition

_COLOURS = {"True": "green", "False": "yellow", "Warning": "red"}
_NO_IMAGE = {"ErrImagePull", "ImagePullBackOff", "ErrImageNeverPull", "InvalidImageName"}
_HASH = re.compile(r"-[0-9a-f]{8,10}-[a-z0-9]{5}$")


@dataclass(frozen=True)
class Line:
    """A line of the story: which object, its state in a word or two, and what is said about it."""

    about: str
    state: str
    text: str = ""


class Story:
    """Prints what is new in each snapshot."""

    def __init__(self, console: Console) -> None:
        self._console = console
        self._began = time.monotonic()
        self._told: dict[str, Line] = {}
        self._events: set[str] = set()

    def begin(self, began: float, *, known: Snapshot | None = None) -> None:
        """Count seconds from here; the Events of a snapshot happened before and are not told."""
        self._began = began
        if known is not None:
            self._events |= {_event_key(event) for event in known.of("Event")}

    def tell(self, snapshot: Snapshot) -> None:
        """Print what the last snapshot did not have: Events, then what came of them."""
        lines = {line.about: line for line in (*_conditions(snapshot), *_jobs(snapshot), *_pods(snapshot))}
        for event in sorted(snapshot.of("Event"), key=_order):
            about = event["involvedObject"]
            self._tell_event(event, lines.get(f"{about['kind']}/{about['name']}"))
        for line in lines.values():
            self.tell_line(line)

    def tell_line(self, line: Line) -> None:
        """Print a line unless it is the last that was told about the same."""
        if self._told.get(line.about) != line:
            self._told[line.about] = line
            self._print(line)

    def _tell_event(self, event: Object, present: Line | None) -> None:
        key, about = _event_key(event), event["involvedObject"]
        if key in self._events:
            return
        self._events.add(key)
        line = Line(f"{about['kind']}/{about['name']}", event["reason"], event.get("message", ""))
        # What a condition said or says, and the everyday life of pods, would only be noise.
        if any(_says(each, line) for each in (self._told.get(line.about), present) if each is not None):
            return
        if about["kind"] in KINDS or event["type"] == "Warning":
            self._print(line, style=_COLOURS.get(event["type"], "cyan"))

    def _print(self, line: Line, *, style: str | None = None) -> None:
        seconds = f"{time.monotonic() - self._began:6.1f} s  "
        colour = style or _COLOURS.get(line.state.split(" ")[0].removeprefix("Ready="), "cyan")
        text = Text.assemble(
            (seconds, "dim"), (f"{_shorten(line.about):<38} ", "bold"), (line.state, colour), "  "
        )
        text.append(" ".join(line.text.split())[:300])
        self._console.print(text, soft_wrap=True)


def images_not_found(snapshot: Snapshot) -> Iterator[str]:
    """Name the pods whose image nobody has, with the image."""
    for pod in snapshot.of("Pod"):
        for status in pod["status"].get("containerStatuses", []):
            if status.get("state", {}).get("waiting", {}).get("reason") in _NO_IMAGE:
                yield f"{pod['metadata']['name']} waits for image {status['image']}"


def _conditions(snapshot: Snapshot) -> Iterator[Line]:
    for kind in KINDS:
        for obj in snapshot.of(kind):
            ready = condition(obj, "Ready")
            if ready:
                stalled = " (Stalled)" if condition(obj, "Stalled").get("status") == "True" else ""
                state = f"Ready={ready['status']} {ready['reason']}{stalled}"
                yield Line(f"{kind}/{obj['metadata']['name']}", state, ready.get("message", ""))


def _jobs(snapshot: Snapshot) -> Iterator[Line]:
    for job in snapshot.of("Job"):
        conditions = job.get("status", {}).get("conditions", [])
        ended = [entry for entry in conditions if entry["status"] == "True"]
        final = next((entry for entry in ended if entry["type"] in {"Complete", "Failed"}), None)
        message = final.get("message", "") if final and final["type"] == "Failed" else ""
        yield Line(f"Job/{job['metadata']['name']}", final["type"] if final else "started", message)


def _pods(snapshot: Snapshot) -> Iterator[Line]:
    for pod in [*snapshot.pods("triton"), *snapshot.pods("keeper")]:
        state = "deleted" if pod["metadata"].get("deletionTimestamp") else _pod_state(pod)
        yield Line(
            f"Pod/{pod['metadata']['name']}", state, f"on {pod['spec'].get('nodeName', 'no node yet')}"
        )


def _pod_state(pod: Object) -> str:
    return "Ready" if condition(pod, "Ready").get("status") == "True" else str(pod["status"]["phase"])


def _says(line: Line, event: Line) -> bool:
    return event.text == line.text or line.state.endswith(f" {event.state}")


def _order(event: Object) -> int:
    # The time has whole seconds; the API server counts its writes here.
    return int(event["metadata"]["resourceVersion"])


def _event_key(event: Object) -> str:
    # Without the count: that something goes on being so is told once.
    about = event["involvedObject"]
    return f"{about.get('uid')}/{event['reason']}/{event.get('message', '')}"


def _shorten(about: str) -> str:
    """Leave out of a pod's name what a Deployment put behind it, but the last five characters."""
    return _HASH.sub(lambda found: f"-…{found.group()[-5:]}", about)
