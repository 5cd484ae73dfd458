"""What a server's tree holds, written to the volume by the keeper before any pod is told."""

from __future__ import annotations

import dataclasses

from engine_builder.contract import Reason
from triton_operator.clients.keeper import KeeperCallError, KeeperRefused
from triton_operator.controllers import survey
from triton_operator.controllers.context import Context
from triton_operator.controllers.survey import Ground
from triton_operator.controllers.volumes import tree_of
from triton_operator.plan import pods, publish
from triton_operator.plan.outcome import OutcomeError, Waiting
from triton_operator.plan.publish import Published
from triton_operator.plan.trial import is_trial, name_of
from triton_operator.plan.versions import Outcomes
from triton_operator.resources.inference_model import InferenceModel


@dataclasses.dataclass(frozen=True)
class Edition:
    """What is published on a server, by name in Triton, and which models there are left alone.

    `to_come` is what pods of another release serve and this release's tree lacks yet, as `model/number`.
    """

    published: tuple[tuple[InferenceModel, Published], ...]
    untouched: frozenset[str]
    to_come: tuple[str, ...] = ()

    @property
    def names(self) -> frozenset[str]:
        """Return the names in Triton that the tree has, candidates included."""
        return frozenset(tree.name for _, each in self.published for tree in each.trees())

    @property
    def models(self) -> int:
        """Return of how many models at least one version is published."""
        return len(self.published) + sum(not is_trial(name) for name in self.untouched)


def edition_of(ctx: Context, ground: Ground) -> Edition:
    """Return what a server's tree must hold, model by model."""
    models = survey.models_of(ctx, ground.server)
    served = [model for model in models if publish.refusal(model, ground.server, models) is None]
    found = [(model, _published(ctx, ground, model)) for model in served if not model.spec.suspend]
    suspended = {
        name
        for model in served
        if model.spec.suspend
        for name in (model.triton_name, name_of(model.triton_name))
    }
    return Edition(
        published=tuple((model, made) for model, made in found if made is not None),
        untouched=frozenset(suspended & _names_in_tree(ground)),
        to_come=tuple(
            f"{model.name}/{number}"
            for model, made in found
            for number in sorted(ground.carried(model))
            if made is None or number not in made.engines
        ),
    )


def _published(ctx: Context, ground: Ground, model: InferenceModel) -> Published | None:
    return survey.published_of(ctx, ground, model, survey.builds_of(ground, model, Outcomes()))


async def write(ctx: Context, ground: Ground, edition: Edition) -> None:
    """Make the tree on the volume so.

    Raises:
        OutcomeError: Waiting, as the keeper can't be asked or refuses.
    """
    kept = _leaving(ctx, ground, edition) | edition.untouched
    manifest = publish.manifest((each for _, each in edition.published), kept=kept)
    server, release = ground.server, ground.release
    tree = tree_of(ground.store, server=server.name, release=release)
    if tree is not None and tree.revision == manifest.revision:
        return
    place = (server.namespace, ground.repository.name)
    result = "unreachable"
    try:
        await ctx.volumes.put_tree(place, server=server.name, release=release, manifest=manifest)
        result = "done"
    except KeeperRefused as error:
        result = "refused"
        await ctx.volumes.refresh(place)  # it knows better what lies there
        raise OutcomeError(Waiting(error.reason, f"tree not written: {error.message}", after=2.0)) from error
    except KeeperCallError as error:
        raise OutcomeError(Waiting(Reason.UNREACHABLE.value, f"keeper: {error}", after=2.0)) from error
    finally:
        ctx.metrics.tree_written(result)


def _names_in_tree(ground: Ground) -> frozenset[str]:
    tree = tree_of(ground.store, server=ground.server.name, release=ground.release)
    return frozenset(tree.models) if tree is not None else frozenset()


def _leaving(ctx: Context, ground: Ground, edition: Edition) -> frozenset[str]:
    """Return the models that must go, and can't yet: a pod holds them, or was not heard of."""
    server = ground.server
    unwanted = _names_in_tree(ground) - edition.names - edition.untouched
    reports = {report.uid: report for report in ctx.fleet.reports((server.namespace, server.name))}
    held: frozenset[str] = frozenset()
    for pod in filter(pods.may_serve, survey.pods_of(ctx, server)):
        report = reports.get(pod["metadata"]["uid"])
        held |= unwanted if report is None or report.loaded is None else unwanted & report.loaded
    return held
