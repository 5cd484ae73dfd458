"""What every controller works with."""

from __future__ import annotations

import dataclasses

import aiohttp

from triton_operator.clients.kube import Kube
from triton_operator.controllers.cache import Cache
from triton_operator.controllers.children import Children
from triton_operator.controllers.fleet import Fleet
from triton_operator.controllers.keys import Keys
from triton_operator.controllers.queue import Queue
from triton_operator.controllers.status import StatusWriter
from triton_operator.controllers.volumes import Volumes
from triton_operator.metrics import Metrics
from triton_operator.plan.outcome import Outcome, Ready, Stalled, Suspended, Waiting
from triton_operator.plan.podspec import Images
from triton_operator.resources.model_repository import ModelRepository
from triton_operator.settings import Settings


@dataclasses.dataclass(frozen=True)
class Context:
    """The parts of the operator that controllers share."""

    settings: Settings
    kube: Kube
    cache: Cache
    queue: Queue
    children: Children
    status: StatusWriter
    volumes: Volumes
    fleet: Fleet
    keys: Keys
    metrics: Metrics
    http: aiohttp.ClientSession
    cluster_uid: str
    reads_nodes: bool
    """Whether the operator may read nodes: they belong to no namespace."""

    def images(self, repository: ModelRepository) -> Images:
        """Return the image of a repository's keeper and Jobs, and how it is pulled."""
        own = [reference.name for reference in repository.spec.image_pull_secrets]
        return Images(
            engine_builder=self.settings.engine_builder_image,
            pull_policy=self.settings.image_pull_policy,
            pull_secrets=tuple(dict.fromkeys([*own, *self.settings.image_pull_secrets])),
        )

    def look_again(self, outcome: Outcome) -> float | None:
        """Return the seconds until the next look: what waits is looked at even if no watch tells."""
        if isinstance(outcome, Waiting):
            return self.settings.fleet_seconds if outcome.after is None else outcome.after
        if isinstance(outcome, Stalled):
            return outcome.after
        assert isinstance(outcome, Ready | Suspended)  # noqa: S101 - the tree of outcomes is closed
        return None
