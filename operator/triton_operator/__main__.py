"""Command line: `triton-operator run`."""

from __future__ import annotations

import argparse
import asyncio
import logging
import sys
from collections.abc import Sequence

from triton_operator import __version__, logs
from triton_operator.app import run
from triton_operator.clients.errors import ClientError
from triton_operator.lease import LeaseLost
from triton_operator.settings import PREFIX, Settings

log = logging.getLogger(__name__)


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command line and return the exit code."""
    options = _parser().parse_args(arguments)
    given = {key: value for key, value in vars(options).items() if key != "command"}
    try:
        settings = Settings.from_environment(**given)
    except ValueError as error:
        print(f"triton-operator: {error}", file=sys.stderr)
        return 2
    logs.configure(level=settings.log_level, style=settings.log_format)
    try:
        asyncio.run(run(settings))
    except BaseExceptionGroup as group:
        expected, others = group.split((ClientError, LeaseLost, ValueError))
        if others is not None:
            raise
        log.error("%s", "; ".join(map(str, _leaves(expected))))  # noqa: TRY400 - the messages say it all
        return 1
    except (ClientError, LeaseLost, ValueError) as error:
        log.error("%s", error)  # noqa: TRY400
        return 1
    return 0


def _leaves(group: BaseExceptionGroup[BaseException] | None) -> list[BaseException]:
    found: list[BaseException] = []
    for error in group.exceptions if group is not None else ():
        found += _leaves(error) if isinstance(error, BaseExceptionGroup) else [error]
    return found


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="triton-operator",
        description="Kubernetes operator for NVIDIA Triton Inference Server.",
        epilog=f"Every setting may come from the environment as well, as {PREFIX}<NAME>.",
    )
    parser.add_argument("--version", action="version", version=f"triton-operator {__version__}")
    commands = parser.add_subparsers(dest="command", required=True, metavar="COMMAND")
    command = commands.add_parser("run", help="run the operator until it is ended by a signal")
    command.add_argument("--kubeconfig", help="path of a kubeconfig (default: the pod's service account)")
    command.add_argument("--namespace", help="the operator's own namespace (default: the pod's)")
    command.add_argument("--identity", help="holder of the lease (default: the host name)")
    command.add_argument("--engine-builder-image", help="image of the Jobs and of the keepers")
    command.add_argument("--listen", help="host:port of health and metrics (default: :8080)")
    command.add_argument("--log-level", choices=["DEBUG", "INFO", "WARNING", "ERROR"], help="default: INFO")
    command.add_argument("--log-format", choices=["json", "text"], help="default: json")
    return parser


if __name__ == "__main__":
    sys.exit(main())
