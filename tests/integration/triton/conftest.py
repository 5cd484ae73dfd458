"""The same ground twice: on the double, and on the real server."""

from __future__ import annotations

import shutil
from typing import TYPE_CHECKING

import pytest
from tests.integration import real_triton
from tests.integration.triton.ground import SLOW, Ground, Volume, a_config
from tests.integration.triton_double import TritonDouble

if TYPE_CHECKING:
    from collections.abc import Iterator

CONTROL = ("triton-operator-key", "0123456789abcdef")
IDENTITY = "triton-default-7d9c"
ENGINES = {"one": 1.0, "two": 2.0, "three": 3.0, "broken": None}


@pytest.fixture(scope="module", params=["double", "real"])
def triton(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Ground]:
    """Return a server that was started on four models: good with a candidate, broken, half broken."""
    if request.param == "real" and (reason := real_triton.unavailable()):
        pytest.skip(reason)
    workdir = tmp_path_factory.mktemp(request.param)
    volume = Volume(workdir / "volume")
    _lay_out(volume)
    if request.param == "real":
        with real_triton.real_triton(
            volume.tree, workdir=workdir, control=CONTROL, identity=IDENTITY
        ) as address:
            yield from _open(address, volume)
    else:
        double = TritonDouble(volume.tree, address="127.0.0.1:0", control=CONTROL, identity=IDENTITY)
        double.faults.slow_load |= dict.fromkeys(SLOW, 1.0)
        double.start()
        yield from _open(double.address, volume)
        double.stop()
    shutil.rmtree(workdir)


def _open(address: str, volume: Volume) -> Iterator[Ground]:
    ground = Ground(address=address, volume=volume, control=CONTROL)
    yield ground
    ground.close()


def _lay_out(volume: Volume) -> None:
    for name, factor in ENGINES.items():
        volume.put_engine(name, factor)
    for model, versions in {
        "good": {1: "one", 2: "two"},
        "bad": {1: "broken"},
        "half": {1: "one", 2: "broken"},
    }.items():
        for number, engine in versions.items():
            volume.link(model, number, engine)
        volume.put_config(a_config(model, [*versions]))
    volume.link("good.candidate", 3, "three")
    volume.put_config(a_config("good.candidate", []))
    (volume.tree / "stray").mkdir()
