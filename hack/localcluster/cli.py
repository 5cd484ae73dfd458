"""The command line."""

import argparse
import time
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

from localcluster import builds, health, images, preflight, provisioner
from localcluster.errors import ClusterError
from localcluster.layout import Layout
from localcluster.lock import exclusive
from localcluster.progress import say, step
from localcluster.startup import bring_up
from localcluster.teardown import tear_down

EPILOG = """\
LOCALCLUSTER_STATE names the state folder (/var/lib/triton-operator-localcluster), TRITON_OPERATOR_CACHE the
folder of built binaries (~/.cache/triton-operator). README.md beside this tells what runs and where."""


def main(argv: Sequence[str]) -> int:
    """Run a command and return its exit status."""
    options = parser().parse_args(argv)
    layout = Layout.from_environment()
    try:
        return _dispatch(options, layout)
    except ClusterError as failed:
        say(f"error: {failed}")
        return 1
    except OSError as failed:
        say(f"error: {failed}\n  -> Is the disk full, or a folder of another user in the way?")
        return 1
    except KeyboardInterrupt:
        say("interrupted; the next `up` or `down` cleans up")
        return 130


def parser() -> argparse.ArgumentParser:
    """Return the parser of the command line."""
    top = argparse.ArgumentParser(
        prog="python3 hack/localcluster",
        description="A real Kubernetes cluster with two nodes on one Linux host, without Docker.",
        epilog=EPILOG,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    # `provision` is how `up` starts the storage process; it is no command for people and has no help.
    commands = top.add_subparsers(dest="command", required=True, metavar="COMMAND")
    _add(commands, "up", "build what is missing, start the cluster, wait until it works")
    _add(commands, "down", "stop the cluster and leave nothing behind")
    _add(commands, "status", "show each part; exit 1 when one is not healthy")
    _add(commands, "kubeconfig", "print the path of the administrator's kubeconfig")
    binaries = _add(commands, "binaries", "build what is missing and print the paths of binaries")
    binaries.add_argument(
        "names", nargs="*", metavar="NAME", help=f"all without a name; one of {', '.join(builds.NAMES)}"
    )
    load = _add(commands, "load", "import docker-archive files into both nodes")
    load.add_argument(
        "archives",
        nargs="+",
        metavar="ARCHIVE",
        type=Path,
        help="of `buildah push NAME docker-archive:FILE:NAME`",
    )
    commands.add_parser("provision").add_argument("state", type=Path)
    return top


def _add(
    commands: "argparse._SubParsersAction[argparse.ArgumentParser]",
    name: str,
    description: str,
) -> argparse.ArgumentParser:
    return commands.add_parser(
        name, help=description, description=f"{description[0].upper()}{description[1:]}."
    )


def _dispatch(options: argparse.Namespace, layout: Layout) -> int:
    match options.command:
        case "up":
            return _up(layout)
        case "down":
            return _down(layout)
        case "status":
            return _status(layout)
        case "kubeconfig":
            print(_existing_kubeconfig(layout))
        case "binaries":
            return _binaries(layout, options.names)
        case "load":
            preflight.check_user()
            _existing_kubeconfig(layout)
            images.load(layout, options.archives)
        case "provision":
            provisioner.serve(replace(layout, state=options.state))
    return 0


def _up(layout: Layout) -> int:
    preflight.check_user()
    began = time.monotonic()
    with exclusive():
        bring_up(layout)
    say(f"The cluster is up after {time.monotonic() - began:.1f} s. Next:")
    print(f"export KUBECONFIG={layout.kubeconfig}")
    print(f"export PATH={builds.folder(layout)}:$PATH")
    return 0


def _down(layout: Layout) -> int:
    preflight.check_user()
    preflight.check_state_folder(layout)
    preflight.check_owner(layout)
    with exclusive(), step("down"):
        found = tear_down(layout)
    if not found:
        say("There was no cluster.")
    return 0


def _status(layout: Layout) -> int:
    preflight.check_user()
    if not layout.cluster_record.exists():
        say("There is no running cluster. `python3 hack/localcluster up` starts one.")
        return 1
    rows = health.conditions(layout)
    print(health.table(rows))
    print(f"\nkubeconfig  {layout.kubeconfig}\nlogs        {layout.logs}\naudit log   {layout.audit_log}")
    return 0 if all(row.healthy for row in rows) else 1


def _binaries(layout: Layout, names: Sequence[str]) -> int:
    unknown = sorted(set(names) - set(builds.NAMES))
    if unknown:
        raise ClusterError(f"Unknown: {', '.join(unknown)}.", f"Known are {', '.join(builds.NAMES)}.")
    wanted = list(names) or list(builds.NAMES)
    builds.build_missing(layout, wanted)
    for name in wanted:
        print(builds.binary_path(layout, name))
    return 0


def _existing_kubeconfig(layout: Layout) -> Path:
    if not layout.kubeconfig.exists():
        raise ClusterError("There is no running cluster.", "Start one: `python3 hack/localcluster up`.")
    return layout.kubeconfig
