"""What the fleet sees, told to whom it concerns: reconcilers, metrics, and people by Events."""

from __future__ import annotations

import dataclasses
import logging

from triton_operator.controllers import routes
from triton_operator.controllers.cache import Cache
from triton_operator.controllers.fleet import Place
from triton_operator.controllers.queue import Queue
from triton_operator.controllers.status import StatusWriter
from triton_operator.logs import about
from triton_operator.metrics import Metrics
from triton_operator.resources.triton_server import TritonServer

log = logging.getLogger(__name__)


@dataclasses.dataclass(frozen=True)
class Chronicle:
    """The fleet's observer in the running operator."""

    cache: Cache
    queue: Queue
    status: StatusWriter
    metrics: Metrics

    def reported(self, place: Place) -> None:
        """Have the server, and the models that name it, looked at again."""
        for key in routes.keys_on_server(self.cache, *place):
            self.queue.add(key)

    def loaded(self, operation: str, result: str, seconds: float) -> None:
        """Count a load or unload."""
        self.metrics.loaded(operation, result, seconds)

    def drifted(self, place: Place, pod: str, what: str) -> None:
        """Say that a pod was changed by another hand; putting it right has begun."""
        self.metrics.drifted()
        log.warning("drift: %s", what, extra=about("Pod", place[0], pod))
        server = self.cache.read(TritonServer, *place)
        if server is None:
            return
        message = f"pod {pod}: {what}, other than the tree says; it is being put right"
        self.status.tell(server, reason="Drifted", message=message, warning=True)
