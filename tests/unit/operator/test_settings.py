from __future__ import annotations

import dataclasses
import inspect

import pytest

from triton_operator.plan.attempts import FIRST_BACKOFF_SECONDS
from triton_operator.settings import PREFIX, Settings

REQUIRED = {
    f"{PREFIX}NAMESPACE": "triton-system",
    f"{PREFIX}ENGINE_BUILDER_IMAGE": "example.com/engine-builder:1",
    "HOSTNAME": "triton-operator-7f9c",
}


def test_defaults_need_a_namespace_and_an_image_only() -> None:
    settings = Settings.from_environment(REQUIRED)
    assert settings.namespace == "triton-system"
    assert settings.identity == "triton-operator-7f9c"
    assert (settings.workers, settings.resync_seconds, settings.fleet_seconds) == (8, 300, 15)
    assert settings.retry_seconds == FIRST_BACKOFF_SECONDS
    assert settings.kubeconfig is None


def test_environment_is_read_by_type() -> None:
    settings = Settings.from_environment(
        {
            **REQUIRED,
            f"{PREFIX}WORKERS": "3",
            f"{PREFIX}FLEET_SECONDS": "2.5",
            f"{PREFIX}IMAGE_PULL_SECRETS": "one, two,",
            f"{PREFIX}IMAGE_PULL_POLICY": "Never",
            f"{PREFIX}KUBECONFIG": "/etc/kubeconfig",
        }
    )
    assert settings.workers == 3
    assert settings.fleet_seconds == 2.5
    assert settings.image_pull_secrets == ("one", "two")
    assert settings.image_pull_policy == "Never"
    assert settings.kubeconfig == "/etc/kubeconfig"


def test_command_line_comes_before_the_environment() -> None:
    environment = {**REQUIRED, f"{PREFIX}WORKERS": "3"}
    assert Settings.from_environment(environment, workers=5).workers == 5
    assert Settings.from_environment(environment, workers=None).workers == 3


@pytest.mark.parametrize(
    ("name", "value", "complaint"),
    [
        ("WORKERS", "many", "TRITON_OPERATOR_WORKERS=many: not a number"),
        ("WORKERS", "0", "workers must be more than 0"),
        ("LOG_LEVEL", "LOUD", "must be one of DEBUG, INFO, WARNING, ERROR"),
        (
            "ENGINE_BUILDER_IMAGE",
            "",
            "engine_builder_image is not set: set TRITON_OPERATOR_ENGINE_BUILDER_IMAGE",
        ),
    ],
)
def test_what_can_not_work_is_refused_by_name(name: str, value: str, complaint: str) -> None:
    with pytest.raises(ValueError, match=complaint):
        Settings.from_environment({**REQUIRED, PREFIX + name: value})


def test_every_setting_is_documented() -> None:
    source = inspect.getsource(Settings)
    for field in dataclasses.fields(Settings):
        _, _, after = source.partition(f"    {field.name}: ")
        assert after.splitlines()[1].strip().startswith('"""'), field.name
