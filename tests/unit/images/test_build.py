from __future__ import annotations

import configparser
from typing import TYPE_CHECKING, Any

import pytest

if TYPE_CHECKING:
    from pathlib import Path
    from types import ModuleType


@pytest.fixture
def project(tmp_path: Path, recipe: ModuleType, monkeypatch: pytest.MonkeyPatch) -> Path:
    (tmp_path / "Dockerfile").write_text("FROM scratch\n")
    (tmp_path / "code/__pycache__").mkdir(parents=True)
    (tmp_path / "code/a.py").write_text("a = 1\n")
    (tmp_path / "lock.txt").write_text("x==1\n")
    monkeypatch.setattr(recipe, "ROOT", tmp_path)
    return tmp_path


def image(recipe: ModuleType) -> Any:
    return recipe.Image("sample", ("code", "lock.txt"))


@pytest.mark.parametrize("path", ["Dockerfile", "code/a.py", "code/new.py", "lock.txt"])
def test_the_tag_follows_every_source(recipe: ModuleType, project: Path, path: str) -> None:
    before = image(recipe).tag("base")
    (project / path).write_text("changed\n")
    assert image(recipe).tag("base") != before


@pytest.mark.parametrize("path", ["code/__pycache__/a.pyc", "code/.cache", "README.md"])
def test_the_tag_ignores_what_no_image_holds(recipe: ModuleType, project: Path, path: str) -> None:
    before = image(recipe).tag("base")
    (project / path).write_text("changed\n")
    assert image(recipe).tag("base") == before


def test_the_tag_follows_the_base_image(recipe: ModuleType, project: Path) -> None:
    assert project.is_dir()
    assert image(recipe).tag("debian:12") != image(recipe).tag("debian:13")


def test_the_context_holds_what_the_tag_is_made_of(recipe: ModuleType, project: Path) -> None:
    context = project / "context"
    image(recipe).stage(context)
    found = sorted(path.relative_to(context).as_posix() for path in context.rglob("*") if path.is_file())
    assert found == ["Dockerfile", "code/a.py", "lock.txt"]


def test_every_image_is_made_of_files_that_exist(recipe: ModuleType) -> None:
    for found in recipe.IMAGES.values():
        assert all(path.is_file() for path in found.files())


@pytest.fixture
def pip_settings(tmp_path: Path, host: ModuleType, monkeypatch: pytest.MonkeyPatch) -> Any:
    for name in ("PIP_CERT", "PIP_FIND_LINKS", "REQUESTS_CA_BUNDLE", "CURL_CA_BUNDLE", "SSL_CERT_FILE"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setattr(host.Path, "home", lambda: tmp_path / "home")
    monkeypatch.delenv("XDG_CONFIG_HOME", raising=False)

    def written() -> dict[str, str]:
        folder = tmp_path / "settings"
        host.share_settings(folder, downloads=tmp_path / "downloads")
        parser = configparser.RawConfigParser()
        parser.read(folder / "pip.conf")
        return dict(parser["global"])

    return written


def test_pips_environment_wins_over_its_files(
    pip_settings: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    config = tmp_path / "home/.config/pip/pip.conf"
    config.parent.mkdir(parents=True)
    config.write_text("[global]\ntimeout = 7\nindex-url = https://mirror.example/simple\n")
    monkeypatch.setenv("PIP_TIMEOUT", "9")
    settings = pip_settings()
    assert settings["timeout"] == "9"
    assert settings["index-url"] == "https://mirror.example/simple"


def test_a_certificate_travels_into_the_build(
    pip_settings: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    certificate = tmp_path / "ca.crt"
    certificate.write_text("certificate")
    monkeypatch.setenv("PIP_CERT", str(certificate))
    assert pip_settings()["cert"] == f"/run/build/files{certificate}"
    assert (tmp_path / f"settings/files{certificate}").read_text() == "certificate"


def test_both_forms_of_apt_sources_are_read(host: ModuleType) -> None:
    old = "deb [signed-by=/k] http://a.example/debian/ bookworm main\n"
    new = "Types: deb\nURIs: http://b.example/debian\nSuites: bookworm bookworm-updates\nComponents: main\n"
    assert host._sources(old) == [("http://a.example/debian", ["bookworm"])]
    assert host._sources(new) == [("http://b.example/debian", ["bookworm", "bookworm-updates"])]
