"""The compose file and the Dockerfile, as far as they can be checked without a container engine: nothing in them is misspelt or open."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import yaml

from prefect_routines.config import Config
from prefect_routines.up.parts import POOL, POOL_TYPE, SERVER_SETTINGS
from prefect_routines.up.plan import Wishes

DEPLOYMENTS = Path(__file__).parents[2] / "deployments"
COMPOSE: dict[str, Any] = yaml.safe_load((DEPLOYMENTS / "compose.yaml").read_text())
SERVICES: dict[str, dict[str, Any]] = COMPOSE["services"]
OURS = [name for name, service in SERVICES.items() if "build" in service]
IMAGE_VARIABLES = {"POSTGRES_USER", "POSTGRES_PASSWORD", "POSTGRES_DB"}
"""Of the official image postgres: https://hub.docker.com/_/postgres."""
SERVICE_KEYS = {"image", "build", "init", "restart", "command", "environment", "ports", "depends_on", "healthcheck", "configs", "volumes"}
SERVICE_KEYS |= {"deploy", "stop_grace_period", "cap_drop", "security_opt"}
"""Those we use of https://github.com/compose-spec/compose-spec/blob/main/05-services.md."""


def test_the_file_has_the_parts_of_a_compose_file() -> None:
    """Other keys on these levels are refused by compose."""
    assert {key for key in COMPOSE if not key.startswith("x-")} == {"services", "configs", "volumes"}
    assert set(SERVICES) == {"postgres", "redis", "server", "services", "worker", "gateway"}
    for name, service in SERVICES.items():
        assert set(service) <= SERVICE_KEYS, name
        for needed in service.get("depends_on", {}):
            assert "healthcheck" in SERVICES[needed], f"{name} waits for {needed} to be healthy"
        for volume in service.get("volumes", []):
            assert volume.split(":")[0] in COMPOSE["volumes"]
        for config in service.get("configs", []):
            assert config["source"] in COMPOSE["configs"]
        assert service["restart"] == "unless-stopped"


@pytest.mark.parametrize("name", [name for name, service in SERVICES.items() if "build" not in service])
def test_images_of_others_are_pinned(name: str) -> None:
    """To a version and a distribution; `latest` is another one tomorrow."""
    assert re.fullmatch(r"[a-z]+:\d+(\.\d+)*-[a-z]+", SERVICES[name]["image"])


def test_every_variable_is_known_to_who_reads_it() -> None:
    """A misspelt one would do nothing, in silence."""
    from prefect.settings import get_current_settings
    from prefect_redis.client import RedisMessagingSettings

    prefix = RedisMessagingSettings.model_config["env_prefix"]
    assert prefix is not None
    known = set(get_current_settings().to_environment_variables())
    known |= {f"{prefix}{name}".upper() for name in RedisMessagingSettings.model_fields}
    known |= {f"ROUTINES_{name}".upper() for name in Config.model_fields}
    known |= IMAGE_VARIABLES | {"ANTHROPIC_API_KEY"}
    for name, service in SERVICES.items():
        assert set(service.get("environment", {})) <= known, name


def test_the_modules_that_the_settings_name_exist() -> None:
    """Prefect imports them when it starts."""
    import importlib

    modules = [value for value in SERVICES["server"]["environment"].values() if str(value).startswith("prefect_redis.")]
    assert len(modules) == 5
    for module in modules:
        importlib.import_module(module)


def test_api_and_services_are_set_alike_and_as_up_sets_its_server() -> None:
    """The services read the events that the API publishes."""
    api, services = (SERVICES[name]["environment"] for name in ("server", "services"))
    assert services.items() <= api.items()
    assert SERVER_SETTINGS.items() <= api.items()


@pytest.mark.parametrize("name", OURS)
def test_each_command_fits_its_command_line(name: str) -> None:
    """Every option of it is in the program's own help."""
    program, *words = SERVICES[name]["command"]
    command = [word for word in words if re.fullmatch(r"[a-z]+", word) and words.index(word) < _first_option(words)]
    done = subprocess.run([str(Path(sys.executable).with_name(program)), *command, "--help"], capture_output=True, text=True, check=True)
    for option in (word for word in words if word.startswith("--")):
        assert re.search(rf"{option}\b", done.stdout), option


def _first_option(words: list[str]) -> int:
    return next((index for index, word in enumerate(words) if word.startswith("--")), len(words))


def test_pool_and_ports_are_those_of_up() -> None:
    """One machine or many: deployments and webhooks look the same."""
    worker = SERVICES["worker"]["command"]
    assert worker[worker.index("--pool") + 1 :: 2] == [POOL, POOL_TYPE]
    assert SERVICES["worker"]["deploy"] == {"replicas": 2}
    assert SERVICES["gateway"]["ports"] == [f"{Wishes().gateway_port}:{Wishes().gateway_port}"]
    assert SERVICES["gateway"]["environment"]["PREFECT_API_URL"] == SERVICES["worker"]["environment"]["PREFECT_API_URL"]


def test_only_the_gateway_is_open_to_others() -> None:
    """Prefect's API asks for no login by itself; the databases are for the services only."""
    published = {name: service["ports"] for name, service in SERVICES.items() if "ports" in service}
    assert set(published) == {"server", "gateway"}
    assert published["server"] == ["127.0.0.1:4200:4200"]


def test_the_worker_has_what_the_sandbox_needs_and_no_more() -> None:
    """The profile, no capability, no privileged container."""
    worker = SERVICES["worker"]
    assert worker["cap_drop"] == ["ALL"]
    profile = next(option for option in worker["security_opt"] if option.startswith("seccomp="))
    assert (DEPLOYMENTS / profile.partition("=")[2]).is_file()
    assert not [name for name, service in SERVICES.items() if "privileged" in service or "cap_add" in service]
    assert [name for name, service in SERVICES.items() if "security_opt" in service] == ["worker"]


def test_no_secret_is_written_down() -> None:
    """Passwords and keys come from the environment or deployments/.env, which neither git nor the image gets."""
    for service in SERVICES.values():
        for name, value in service.get("environment", {}).items():
            if re.search("PASSWORD|_KEY", name):
                assert re.fullmatch(r"\$\{\w+:[?-][^}]*\}", value), name
            assert not re.search(r"://\w+:(?!\$\{)[^@]+@", str(value)), name
    ignored = (DEPLOYMENTS / "Dockerfile.dockerignore").read_text().splitlines()
    assert {".env", "**/.env", ".git"} <= set(ignored)


def test_the_image_is_built_for_an_ordinary_user() -> None:
    """It ends as that user, from a pinned base, with what the sandbox needs."""
    lines = (DEPLOYMENTS / "Dockerfile").read_text().replace("\\\n", " ").splitlines()
    orders = [line.split(maxsplit=1) for line in lines if line and not line.startswith("#")]
    assert [what for order, what in orders if order == "FROM"] == ["python:3.13-slim-bookworm"]
    assert [what for order, what in orders if order == "USER"] == ["routines"]
    assert orders[-1][0] == "CMD"
    assert orders[-2][0] == "USER"
    installed = next(what for order, what in orders if "apt-get install" in what)
    assert {"bubblewrap", "git", "libseccomp2", "ca-certificates"} <= set(installed.split())
    assert not [what for order, what in orders if order in ("ENV", "ARG") and re.search("KEY|TOKEN|PASSWORD|SECRET", what)]
    assert not [what for order, what in orders if order == "ADD"]


def test_the_proc_of_a_container_with_masked_paths_stops_the_sandbox(tmp_path: Path) -> None:
    """That is why the worker has systempaths=unconfined: the kernel refuses a new /proc beside a partly hidden one."""
    if subprocess.run(["unshare", "--mount", "true"], check=False).returncode != 0:
        pytest.skip("this user may make no mount namespace, so the container's /proc cannot be imitated")
    inner = "setpriv --reuid 65534 --regid 65534 --clear-groups --bounding-set=-all bwrap --unshare-all --ro-bind / / --proc /proc true"
    for hidden, works in (("true", True), ("mount --bind /dev/null /proc/kcore", False)):
        done = subprocess.run(["unshare", "--mount", "sh", "-c", f"{hidden} && {inner}"], capture_output=True, text=True, check=False)
        assert (done.returncode == 0) is works, done.stderr
