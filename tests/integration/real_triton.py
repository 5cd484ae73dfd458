"""The real tritonserver as a host process, for checks that the double behaves alike.

The wheels of `locks/triton-cpu.txt` are installed once into a virtual environment of the cache; the
backends are laid out as the image `triton-cpu` has them.
"""

from __future__ import annotations

import contextlib
import hashlib
import os
import shutil
import signal
import socket
import subprocess
import sys
import time
from pathlib import Path
from typing import TYPE_CHECKING

import grpc
from tritonclient.grpc import service_pb2, service_pb2_grpc

if TYPE_CHECKING:
    from collections.abc import Iterator

ROOT = Path(__file__).resolve().parents[2]
TENSORRT_DOUBLE = ROOT / "tests/images/triton-tensorrt-double/tensorrt"
LOCK = ROOT / "locks/triton-cpu.txt"
START_SECONDS = 60


def cache_directory() -> Path:
    """Return the folder that outlives clones: `TRITON_OPERATOR_CACHE`, or the user's cache."""
    if named := os.environ.get("TRITON_OPERATOR_CACHE"):
        return Path(named)
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "triton-operator"


def unavailable() -> str | None:
    """Return why the real server can't run here, or None."""
    if sys.platform != "linux":
        return "tritonserver runs on Linux"
    missing = [str(path) for path in (LOCK, _images() / "triton-cpu") if not path.exists()]
    return f"not there: {', '.join(missing)}" if missing else None


@contextlib.contextmanager
def real_triton(
    repository: Path, *, workdir: Path, control: tuple[str, str], identity: str = "triton"
) -> Iterator[str]:
    """Run tritonserver on a repository; yield the address of its gRPC endpoint.

    `identity` is what it calls itself, `control` is header and key of the restricted protocols. The
    server is ended with SIGTERM, and by force when that takes too long.
    """
    site = _site_packages(_environment())
    ports = _free_ports(3)
    log = workdir / "tritonserver.log"
    command = [
        str(site / "pytriton/tritonserver/bin/tritonserver"),
        f"--id={identity}",
        *_arguments(repository, backends=_backends(workdir, site=site), ports=ports, control=control),
    ]
    with log.open("ab") as output:
        process = subprocess.Popen(
            command,
            stdout=output,
            stderr=subprocess.STDOUT,
            env=_process_environment(site),
            start_new_session=True,
        )
    try:
        address = f"127.0.0.1:{ports[1]}"
        _wait_until_live(address, process=process, log=log)
        yield address
    finally:
        _stop(process)


def _arguments(
    repository: Path, *, backends: Path, ports: list[int], control: tuple[str, str]
) -> Iterator[str]:
    restricted = f"model-repository,model-config:{control[0]}={control[1]}"
    yield from (
        f"--model-repository={repository}",
        "--model-control-mode=explicit",
        "--load-model=*",
        "--exit-on-error=false",
        "--strict-readiness=false",
        f"--backend-directory={backends}",
        f"--grpc-restricted-protocol={restricted}",
        f"--http-restricted-api={restricted}",
        "--disable-auto-complete-config",
        "--backend-config=python,shm-default-byte-size=1048576",
        "--exit-timeout-secs=5",
    )
    for protocol, port in zip(("http", "grpc", "metrics"), ports, strict=True):
        yield from (f"--{protocol}-address=127.0.0.1", f"--{protocol}-port={port}")


def _environment() -> Path:
    """Return the virtual environment that holds exactly the lock's wheels; made on first use."""
    digest = hashlib.sha256(LOCK.read_bytes()).hexdigest()[:12]
    home = cache_directory() / "venvs" / f"triton-cpu-{digest}"
    if not (home / "complete").exists():
        shutil.rmtree(home, ignore_errors=True)
        home.parent.mkdir(parents=True, exist_ok=True)
        subprocess.run([sys.executable, "-m", "venv", str(home)], check=True)
        install = [
            str(home / "bin/python"),
            "-m",
            "pip",
            "install",
            "--quiet",
            "--no-deps",
            "--require-hashes",
        ]
        subprocess.run([*install, "-r", str(LOCK)], check=True)
        (home / "complete").touch()
    return home


def _site_packages(environment: Path) -> Path:
    return next(environment.glob("lib/python3*/site-packages"))


def _images() -> Path:
    return ROOT / "images"


def _backends(workdir: Path, *, site: Path) -> Path:
    """Lay out the python backend, and ours beside it, as the image has them."""
    server = site / "pytriton/tritonserver"
    backends = workdir / "backends"
    if not backends.exists():
        shutil.copytree(server / "backends/python", backends / "python")
        stub = f"python_backend_stubs/{sys.version_info.major}.{sys.version_info.minor}"
        shutil.copy(server / stub / "triton_python_backend_stub", backends / "python")
        utils = next(site.glob("**/triton_python_backend_utils.py"), None)
        if utils:
            shutil.copy(utils, backends / "python")
        for name in ("onnxruntime", "openvino"):
            for part in ("common", name):
                shutil.copytree(_images() / "triton-cpu" / part, backends / name, dirs_exist_ok=True)
        _add_tensorrt_double(backends)
    return backends


def _add_tensorrt_double(backends: Path) -> None:
    """Lay out the stand-in for the TensorRT backend, as the image `triton-tensorrt-double` has it."""
    tensorrt, shared = backends / "tensorrt", backends / "onnxruntime"
    shutil.copytree(TENSORRT_DOUBLE, tensorrt)
    (tensorrt / "engine_builder").symlink_to(ROOT / "engine_builder/engine_builder")
    (tensorrt / "onnx_backend.py").symlink_to(shared / "model.py")
    for name in ("batching.py", "datatypes.py", "options.py", "served.py", "signature.py"):
        (tensorrt / name).symlink_to(shared / name)


def _process_environment(site: Path) -> dict[str, str]:
    environment = {name: value for name, value in os.environ.items() if not name.startswith("PYTHON")}
    python = site.parents[2] / "bin"
    libraries = [str(site / "nvidia_pytriton.libs"), _python_library_directory()]
    return environment | {
        "LD_LIBRARY_PATH": ":".join(libraries),
        "PATH": f"{python}:{environment['PATH']}",
        "PYTHONPATH": str(site),
        "PYTHONDONTWRITEBYTECODE": "1",
    }


def _python_library_directory() -> str:
    import sysconfig

    return str(sysconfig.get_config_var("LIBDIR"))


def _free_ports(count: int) -> list[int]:
    with contextlib.ExitStack() as stack:
        sockets = [stack.enter_context(socket.socket()) for _ in range(count)]
        for each in sockets:
            each.bind(("127.0.0.1", 0))
        return [each.getsockname()[1] for each in sockets]


def _wait_until_live(address: str, *, process: subprocess.Popen[bytes], log: Path) -> None:
    deadline = time.monotonic() + START_SECONDS
    with grpc.insecure_channel(address) as channel:
        stub = service_pb2_grpc.GRPCInferenceServiceStub(channel)
        while time.monotonic() < deadline and process.poll() is None:
            with contextlib.suppress(grpc.RpcError):
                if stub.ServerReady(service_pb2.ServerReadyRequest(), timeout=1).ready:
                    return
            time.sleep(0.1)
    raise RuntimeError(f"tritonserver did not become ready:\n{log.read_text(errors='replace')[-4000:]}")


def _stop(process: subprocess.Popen[bytes]) -> None:
    process.terminate()
    try:
        process.wait(timeout=15)
    except subprocess.TimeoutExpired:
        os.killpg(process.pid, signal.SIGKILL)
        process.wait()
