"""Command line of the jobs and the keeper: a command per job, `--help` on each."""

from __future__ import annotations

import argparse
import os
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

from engine_builder import __version__, export, job, names, precision, prepare, samples, store
from engine_builder.compile import CompileRequest, compile_engine
from engine_builder.compilers import api
from engine_builder.contract import (
    PREPARE_VERSION,
    CompileOptions,
    ExitCode,
    Precision,
    Report,
    Target,
    from_json,
)
from engine_builder.convert import ConvertRequest, convert_engine
from engine_builder.errors import JobError
from engine_builder.fetch import SingleFile
from engine_builder.files import human
from engine_builder.precision import Conversion
from engine_builder.progress import Progress
from engine_builder.remote import Access
from engine_builder.volume import Layout

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

_T = TypeVar("_T", Target, CompileOptions)
_EPILOG = """exit codes: 0 done; 2 wrong command line; 10 the source or what was asked for is at fault,
trying again is useless; 20 a passing fault (volume full, cancelled, …), try again."""
_SAMPLES_HELP = """Put samples of the user's own into the store, with what the source of an engine answers
to them. They are an .npz file of NumPy, without pickles: one array for each input of
the model, under its name and of its type, batch included; rows of a batch are asked one by one.
Several samples of a model without a batch are told apart by <number>/<input>."""
_PRECISION_HELP = """FP32 and TF32 leave the model as it is, FP16 and INT8 are put into it, BF16 and FP8 must
be in it already. Answers before and after are compared; a loss beyond --minimum-cosine ends the job."""
_DIGEST_HELP = """Print the sha256 that source.sha256 wants. Without external data it is that of
the .onnx file; with external data it is the sha256 of the sorted listing that `sha256sum` prints
of all its files, run in their directory."""


def _checked(what: str, test: Callable[[str], bool]) -> Callable[[str], str]:
    def convert(text: str) -> str:
        if not test(text):
            raise argparse.ArgumentTypeError(f"{text!r} is not {what}")
        return text

    return convert


def _positive(text: str) -> float:
    seconds = float(text)
    if not seconds > 0:
        raise argparse.ArgumentTypeError(f"{text!r} is not above 0")
    return seconds


def _json(kind: type[_T]) -> Callable[[str], _T]:
    def convert(text: str) -> _T:
        try:
            value = from_json(kind, text)
        except ValueError as error:
            raise argparse.ArgumentTypeError(str(error)) from error
        if value.invalid():
            raise argparse.ArgumentTypeError(value.invalid())
        return value

    return convert


_digest = _checked("64 lower-case hex digits", names.is_digest)
_entry = _checked("a name of the store", names.is_engine)


def _listen(text: str) -> tuple[str, int]:
    host, _, port = text.rpartition(":")
    if not port.isdecimal():
        raise argparse.ArgumentTypeError(f"{text!r} is not HOST:PORT")
    return host.strip("[]") or "0.0.0.0", int(port)  # noqa: S104 - a pod's own network


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser("engine-builder", description=__doc__, epilog=_EPILOG)
    parser.add_argument(
        "--version", action="version", version=f"engine-builder {__version__} (prepare {PREPARE_VERSION})"
    )
    commands = parser.add_subparsers(required=True, metavar="COMMAND")
    _add_prepare(commands)
    _add_compile(commands)
    _add_convert(commands)
    _add_export(commands)
    _add_resolve(commands)
    _add_reference(commands)
    _add_digest(commands)
    _add_verify(commands)
    _add_keeper(commands)
    return parser


def _add_termination_log(command: argparse.ArgumentParser) -> None:
    command.add_argument(
        "--termination-log", type=Path, metavar="FILE", help="write the report there as JSON"
    )


def _add_source(command: argparse.ArgumentParser, *, max_bytes: int = prepare.MAX_BYTES) -> None:
    command.add_argument(
        "--source",
        required=True,
        metavar="URI",
        help="pvc://<claim>/<path>, s3://, gs://, az://, oci://, https://, or a plain path",
    )
    command.add_argument(
        "--source-root",
        type=Path,
        default=Path("/source"),
        metavar="DIR",
        help="where the claim is mounted (default: %(default)s)",
    )
    command.add_argument(
        "--max-bytes", type=int, default=max_bytes, help=f"largest source (default: {human(max_bytes)})"
    )
    command.add_argument(
        "--allowed-host",
        action="append",
        default=[],
        metavar="HOST[:PORT]",
        help="a host that the source may come from; may be given several times (default: none)",
    )
    command.add_argument(
        "--credentials", type=Path, metavar="DIR", help="a mounted Secret: a file for each key"
    )
    _add_termination_log(command)


def _add_staging(command: argparse.ArgumentParser) -> None:
    staging = _checked("a pod's uid", names.is_staging)
    command.add_argument("--staging-uid", type=staging, required=True, metavar="UID", help="of this attempt")


def _add_repository(command: argparse.ArgumentParser) -> None:
    command.add_argument(
        "--repository",
        type=Path,
        required=True,
        metavar="DIR",
        help="where the repository's volume is mounted",
    )


def _add_engine(command: argparse.ArgumentParser) -> None:
    command.add_argument("--engine", type=_entry, required=True, metavar="NAME", help="entry of the store")
    command.add_argument("--key", type=_digest, required=True, help="the engine's full key, 64 hex digits")


def _add_origin(command: argparse.ArgumentParser) -> None:
    command.add_argument(
        "--from", type=_entry, required=True, metavar="NAME", dest="prepared", help="the prepared engine"
    )


def _add_prepare(commands: Any) -> None:
    command = commands.add_parser(
        "prepare", help="make an engine from a source", description=prepare.prepare.__doc__, epilog=_EPILOG
    )
    _add_repository(command)
    _add_engine(command)
    _add_source(command)
    command.add_argument(
        "--sha256", type=_digest, metavar="HEX", help="what the source must be; see `digest`"
    )
    _add_staging(command)
    _add_conversion(command)
    command.set_defaults(run=_prepare)


def _add_conversion(command: argparse.ArgumentParser) -> None:
    group = command.add_argument_group("precision", _PRECISION_HELP)
    choices = tuple(each.value for each in Precision)
    group.add_argument("--precision", choices=choices, default="FP32", help="default: %(default)s")
    group.add_argument("--no-keep-io", action="store_true", help="FP16: make inputs and outputs FP16 as well")
    group.add_argument(
        "--calibration", metavar="URI", help="INT8: an .npz file of real inputs, as `reference` takes it"
    )
    group.add_argument(
        "--calibration-root",
        type=Path,
        default=Path("/calibration"),
        metavar="DIR",
        help="where its claim is mounted (default: %(default)s)",
    )
    group.add_argument(
        "--calibration-credentials", type=Path, metavar="DIR", help="its Secret, as --credentials"
    )
    group.add_argument("--calibration-sha256", type=_digest, metavar="HEX", help="what that file must be")
    group.add_argument(
        "--calibration-generated", action="store_true", help="INT8: calibrate on made-up numbers"
    )
    group.add_argument(
        "--minimum-cosine",
        type=float,
        default=precision.MINIMUM_COSINE,
        metavar="NUMBER",
        help="lowest cosine between the answers before and after (default: %(default)s)",
    )


def _add_compile(commands: Any) -> None:
    command = commands.add_parser(
        "compile",
        help="compile a prepared engine with TensorRT, for one GPU type",
        description="Run this in the TensorRT image of the release, on a GPU of the target.",
        epilog=_EPILOG,
    )
    _add_repository(command)
    _add_engine(command)
    _add_origin(command)
    command.add_argument(
        "--options",
        type=_json(CompileOptions),
        default=CompileOptions(),
        metavar="JSON",
        help="max_batch_size, profiles, workspace_percent, optimization_level, portability, precision",
    )
    command.add_argument(
        "--target",
        type=_json(Target),
        required=True,
        metavar="JSON",
        help='{"product": "NVIDIA-A10", "compute_capability": "8.6", "memory_mib": 23028}',
    )
    command.add_argument(
        "--compiler",
        choices=(*api.COMPILERS, api.AUTO),
        default=api.AUTO,
        help="Python module to build with (default: the first that the image has)",
    )
    command.add_argument(
        "--timing-cache",
        action=argparse.BooleanOptionalAction,
        default=True,
        help="keep TensorRT's timings on the volume (default: yes)",
    )
    command.add_argument(
        "--timeout-seconds", type=_positive, metavar="SECONDS", help="give up then (default: never)"
    )
    _add_staging(command)
    _add_termination_log(command)
    command.set_defaults(run=_compile)


def _add_convert(commands: Any) -> None:
    command = commands.add_parser(
        "convert",
        help="convert a prepared engine to OpenVINO's format",
        description=convert_engine.__doc__,
        epilog=_EPILOG,
    )
    _add_repository(command)
    _add_engine(command)
    _add_origin(command)
    _add_staging(command)
    _add_termination_log(command)
    command.set_defaults(run=_convert)


def _add_export(commands: Any) -> None:
    command = commands.add_parser(
        "export",
        help="copy this package to where another image's Python finds it",
        description="Copy this package into a directory; with that in PYTHONPATH any Python from 3.10 on "
        "runs `python3 -m engine_builder compile`.",
    )
    command.add_argument("into", type=Path, metavar="DIR", help="directory that holds the copy then")
    command.set_defaults(run=_export)


def _add_resolve(commands: Any) -> None:
    command = commands.add_parser("resolve", help="report a source's digest and size", epilog=_EPILOG)
    _add_source(command)
    command.set_defaults(run=_resolve)


def _add_reference(commands: Any) -> None:
    command = commands.add_parser(
        "reference",
        help="have an engine's source answer samples of the user's own",
        description=_SAMPLES_HELP,
        epilog=_EPILOG,
    )
    _add_repository(command)
    command.add_argument(
        "--engine", type=_entry, required=True, metavar="NAME", help="entry of the store that answers"
    )
    command.add_argument(
        "--entry", type=_entry, required=True, metavar="NAME", help="entry of the store that is made"
    )
    command.add_argument("--key", type=_digest, required=True, help="that entry's full key, 64 hex digits")
    _add_source(command, max_bytes=samples.MAX_BYTES)
    command.add_argument("--sha256", type=_digest, metavar="HEX", help="what the file must be")
    _add_staging(command)
    command.set_defaults(run=_reference)


def _add_digest(commands: Any) -> None:
    command = commands.add_parser("digest", help="print a local source's sha256", description=_DIGEST_HELP)
    command.add_argument(
        "path", type=Path, help="an .onnx file, or a directory with one and its external data"
    )
    command.set_defaults(run=_print_digest)


def _add_verify(commands: Any) -> None:
    command = commands.add_parser(
        "verify",
        help="read all engines of a store and compare their digests",
        description="Read every file of every engine and compare its sha256 with the engine's MANIFEST. "
        "Exit code 10 means that one at least is damaged: delete its directory and its Engine, "
        "and it is made again.",
    )
    _add_repository(command)
    command.set_defaults(run=_verify)


def _add_keeper(commands: Any) -> None:
    command = commands.add_parser("keeper", help="serve a repository's volume; key in KEEPER_KEY (hex)")
    _add_repository(command)
    command.add_argument("--listen", type=_listen, default=("0.0.0.0", 8090), metavar="HOST:PORT")  # noqa: S104
    command.add_argument("--cluster", required=True, metavar="UID", help="uid of namespace kube-system")
    command.add_argument("--namespace", required=True, help="of the ModelRepository")
    command.add_argument("--claim-uid", required=True, metavar="UID", help="uid of the PersistentVolumeClaim")
    command.set_defaults(run=_keeper)


def _prepare(arguments: argparse.Namespace) -> int:
    request = prepare.PrepareRequest(
        repository=arguments.repository,
        engine=arguments.engine,
        key=arguments.key,
        uri=arguments.source,
        staging_uid=arguments.staging_uid,
        sha256=arguments.sha256,
        source_root=arguments.source_root,
        max_bytes=arguments.max_bytes,
        conversion=_conversion(arguments),
        access=_access(arguments),
    )
    progress = Progress()
    return _run(arguments, lambda: prepare.prepare(request, progress), progress, engine=arguments.engine)


def _conversion(arguments: argparse.Namespace) -> Conversion:
    calibration = None
    if arguments.calibration is not None:
        calibration = SingleFile(
            uri=arguments.calibration,
            root=arguments.calibration_root,
            field=precision.CALIBRATION_FIELD,
            max_bytes=precision.CALIBRATION_MAX_BYTES,
            sha256=arguments.calibration_sha256,
            access=Access(tuple(arguments.allowed_host), arguments.calibration_credentials),
        )
    return Conversion(
        precision=Precision(arguments.precision),
        keep_io=not arguments.no_keep_io,
        minimum_cosine=arguments.minimum_cosine,
        calibration=calibration,
        generated=arguments.calibration_generated,
    )


def _compile(arguments: argparse.Namespace) -> int:
    request = CompileRequest(
        repository=arguments.repository,
        engine=arguments.engine,
        key=arguments.key,
        prepared=arguments.prepared,
        staging_uid=arguments.staging_uid,
        options=arguments.options,
        target=arguments.target,
        compiler=arguments.compiler,
        timing_cache=arguments.timing_cache,
        timeout_seconds=arguments.timeout_seconds,
    )
    progress = Progress()
    return _run(arguments, lambda: compile_engine(request, progress), progress, engine=arguments.engine)


def _convert(arguments: argparse.Namespace) -> int:
    request = ConvertRequest(
        repository=arguments.repository,
        engine=arguments.engine,
        key=arguments.key,
        prepared=arguments.prepared,
        staging_uid=arguments.staging_uid,
    )
    progress = Progress()
    return _run(arguments, lambda: convert_engine(request, progress), progress, engine=arguments.engine)


def _export(arguments: argparse.Namespace) -> int:
    try:
        print(export.export(arguments.into))
    except OSError as error:
        print(f"{arguments.into} cannot be written: {error.strerror}", file=sys.stderr)
        return int(ExitCode.PASSING_FAULT)
    return int(ExitCode.OK)


def _reference(arguments: argparse.Namespace) -> int:
    request = samples.ReferenceRequest(
        repository=arguments.repository,
        entry=arguments.entry,
        key=arguments.key,
        engine=arguments.engine,
        uri=arguments.source,
        staging_uid=arguments.staging_uid,
        sha256=arguments.sha256,
        source_root=arguments.source_root,
        max_bytes=arguments.max_bytes,
        access=_access(arguments),
    )
    progress = Progress()
    return _run(
        arguments, lambda: samples.make_reference(request, progress), progress, engine=arguments.entry
    )


def _resolve(arguments: argparse.Namespace) -> int:
    progress = Progress()

    def work() -> Report:
        return prepare.resolve(
            arguments.source,
            source_root=arguments.source_root,
            max_bytes=arguments.max_bytes,
            progress=progress,
            access=_access(arguments),
        )

    return _run(arguments, work, progress)


def _access(arguments: argparse.Namespace) -> Access:
    return Access(allowed_hosts=tuple(arguments.allowed_host), credentials=arguments.credentials)


def _run(
    arguments: argparse.Namespace, work: Callable[[], Report], progress: Progress, *, engine: str = ""
) -> int:
    return job.run_job(work, engine=engine, progress=progress, termination_log=arguments.termination_log)


def _print_digest(arguments: argparse.Namespace) -> int:
    try:
        report = prepare.resolve(
            str(arguments.path),
            source_root=Path(),
            max_bytes=prepare.MAX_BYTES,
            progress=Progress(quiet=True),
        )
    except JobError as error:
        print(error, file=sys.stderr)
        return int(Report(error.reason).exit_code)
    print(report.sha256)
    return int(ExitCode.OK)


def _verify(arguments: argparse.Namespace) -> int:
    layout, damaged = Layout(arguments.repository), 0
    for engine in store.list_engines(layout):
        manifest = store.read_manifest(layout, engine)
        bad = ["MANIFEST"] if manifest is None else store.damaged_files(layout, manifest)
        damaged += bool(bad)
        print(f"{engine}: {'damaged: ' + ', '.join(bad) if bad else 'whole'}")
    return int(ExitCode.USER_FAULT if damaged else ExitCode.OK)


def _keeper(arguments: argparse.Namespace) -> int:
    from engine_builder.keeper import Keeper
    from engine_builder.serve import serve
    from engine_builder.volume import Owner

    try:
        key = bytes.fromhex(os.environ.get("KEEPER_KEY", ""))
    except ValueError:
        key = b""
    if not key:
        print("KEEPER_KEY must hold the keeper's key in hex", file=sys.stderr)
        return int(ExitCode.USAGE)
    owner = Owner(arguments.cluster, arguments.namespace, arguments.claim_uid)
    host, port = arguments.listen
    serve(Keeper(arguments.repository, owner), host=host, port=port, key=key)
    return int(ExitCode.OK)


def main(argv: Sequence[str] | None = None) -> int:
    """Run one command and return its exit code."""
    arguments = _parser().parse_args(argv)
    return int(arguments.run(arguments))


if __name__ == "__main__":
    sys.exit(main())
