"""docker-compose.yml and the images' build files, checked without a container engine."""

from __future__ import annotations

import json
import re
import tomllib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import jsonschema
import pytest
import yaml

from containers import practice
from failback.settings import Settings, load_settings
from tools.temporal_binary import TESTED

ROOT = Path(__file__).resolve().parents[2]
SCHEMA = ROOT / "tests" / "data" / "compose-spec" / "compose-spec.json"
COMPOSE: dict[str, Any] = yaml.safe_load((ROOT / "docker-compose.yml").read_text(encoding="utf-8"))
SERVICES: dict[str, dict[str, Any]] = COMPOSE["services"]
DOCKERFILES = sorted((ROOT / "containers").glob("*.Dockerfile"))

SECRET_WORDS = re.compile(r"passw|secret|token|api_?key|credential|private", re.IGNORECASE)


def seconds(duration: str) -> float:
    """`1m30s` -> 90.0."""
    parts = re.findall(r"([\d.]+)(h|ms|m|s)", duration)
    assert "".join(number + unit for number, unit in parts) == duration
    return sum(float(n) * {"h": 3600, "m": 60, "s": 1, "ms": 0.001}[unit] for n, unit in parts)


def instructions(dockerfile: Path) -> Iterator[tuple[str, str]]:
    """Instruction and arguments, continuation lines joined, comments left out."""
    lines = dockerfile.read_text(encoding="utf-8").splitlines()
    text = "\n".join(line for line in lines if not line.lstrip().startswith("#"))
    for line in text.replace("\\\n", " ").splitlines():
        if line.strip():
            word, _, rest = line.strip().partition(" ")
            yield word.upper(), rest.strip()


def is_pinned(image: str) -> bool:
    """Whether the tag says which release: not absent, not `latest`, with a number in it."""
    _, _, tag = image.rpartition("/")[2].partition(":")
    return "@sha256:" in image or bool(re.search(r"\d", tag))


services = pytest.mark.parametrize("name", SERVICES)
dockerfiles = pytest.mark.parametrize("dockerfile", DOCKERFILES, ids=lambda path: path.name)


class TestCompose:
    def test_is_valid_by_the_published_schema(self) -> None:
        schema = json.loads(SCHEMA.read_text(encoding="utf-8"))
        checker = jsonschema.Draft7Validator(schema)

        assert [error.message for error in checker.iter_errors(COMPOSE)] == []

    @pytest.mark.parametrize(
        "broken",
        [
            {"services": {"a": {"imagine": "x"}}},
            {"services": {"a": {"image": "x", "ports": "80"}}},
            {"services": {"a": {"image": "x", "healthcheck": {"test": 7}}}},
        ],
    )
    def test_schema_would_find_a_mistake(self, broken: dict[str, Any]) -> None:
        schema = json.loads(SCHEMA.read_text(encoding="utf-8"))

        assert not jsonschema.Draft7Validator(schema).is_valid(broken)

    @services
    def test_every_image_is_pinned(self, name: str) -> None:
        assert is_pinned(SERVICES[name]["image"])

    @services
    def test_ports_are_for_this_machine_only(self, name: str) -> None:
        service = SERVICES[name]

        assert service.get("network_mode") != "host"
        for port in service.get("ports", []):
            assert isinstance(port, str)
            assert re.fullmatch(r"127\.0\.0\.1:\d+:\d+(/tcp)?", port)

    def test_no_port_is_published_twice(self) -> None:
        published = [port.split(":")[1] for s in SERVICES.values() for port in s.get("ports", [])]

        assert len(published) == len(set(published))

    @services
    def test_every_service_is_watched(self, name: str) -> None:
        check = SERVICES[name]["healthcheck"]

        assert check["test"][0] in ("CMD", "CMD-SHELL")
        assert seconds(check["timeout"]) <= seconds(check["interval"]) + 5
        assert check["retries"] >= 3

    @services
    def test_data_is_in_named_volumes(self, name: str) -> None:
        for volume in SERVICES[name].get("volumes", []):
            source, target = volume.split(":")[:2]
            assert source in COMPOSE["volumes"], "neither anonymous nor a folder of this machine"
            assert target.startswith("/")

    def test_every_named_volume_is_used(self) -> None:
        used = {v.split(":")[0] for s in SERVICES.values() for v in s.get("volumes", [])}

        assert used == set(COMPOSE["volumes"])

    @services
    def test_what_is_built_has_its_build_file(self, name: str) -> None:
        build = SERVICES[name].get("build")
        if build is None:
            return
        context = ROOT / build["context"]

        assert context.resolve() == ROOT
        assert (context / build["dockerfile"]) in DOCKERFILES

    @services
    def test_starts_when_what_it_needs_is_healthy(self, name: str) -> None:
        needs = SERVICES[name].get("depends_on", {})

        assert isinstance(needs, dict), "the short form waits for nothing"
        for other, how in needs.items():
            assert how["condition"] == "service_healthy"
            assert "healthcheck" in SERVICES[other]
        joined = SERVICES[name].get("network_mode", "")
        if joined.startswith("service:"):
            assert joined.removeprefix("service:") in needs

    @services
    def test_carries_no_secret(self, name: str) -> None:
        variables = SERVICES[name].get("environment", {})

        assert isinstance(variables, dict)
        for variable in variables:
            assert variable.endswith("_FILE") or not SECRET_WORDS.search(variable)
        assert not SECRET_WORDS.search(str(SERVICES[name].get("command", "")))

    @services
    def test_no_fixed_names_and_no_privileges(self, name: str) -> None:
        # Fixed container names make a second checkout fail.
        forbidden = {"container_name", "privileged", "cap_add", "pid", "ipc"}

        assert not forbidden & SERVICES[name].keys()

    def test_temporal_is_a_release_we_tested(self) -> None:
        assert SERVICES["temporal"]["image"].partition(":")[2] in TESTED

    def test_temporal_survives_a_restart(self) -> None:
        temporal = SERVICES["temporal"]
        database = temporal["command"][temporal["command"].index("--db-filename") + 1]

        targets = [volume.split(":")[1] for volume in temporal["volumes"]]
        assert any(database.startswith(f"{target}/") for target in targets)

    def test_worker_reaches_temporal_under_its_name(self) -> None:
        host, _, port = SERVICES["worker"]["environment"]["TEMPORAL_ADDRESS"].partition(":")

        assert host in SERVICES
        assert [p for p in SERVICES[host]["ports"] if p.endswith(f":{port}")]

    def test_worker_and_lab_see_the_disks_under_one_name(self) -> None:
        lab, worker = SERVICES["lab"]["volumes"], SERVICES["worker"]["volumes"]

        assert set(lab) <= set(worker)


class TestPractice:
    """The worker's settings in the containers, made from what the lab writes."""

    @pytest.fixture
    def settings(self, tmp_path: Path) -> Settings:
        manifest = {
            "username": "lab@failback.local",
            "password_file": "/lab/site/password",
            "ca_file": "/lab/site/ca.pem",
            "sites": {
                "production": {
                    "url": "https://127.0.0.1:40001/sdk",
                    "datastores": {"ds-production": "/lab/site/datastores/production"},
                },
                "dr": {
                    "url": "https://127.0.0.1:40002/sdk",
                    "datastores": {'odd "name" \\ é': "/lab/site/datastores/dr"},
                },
            },
        }
        file = tmp_path / "settings.toml"
        file.write_text(practice.settings_text(manifest, tmp_path / "state"), encoding="utf-8")
        return load_settings(file, {})

    def test_are_settings_that_the_worker_takes(self, settings: Settings) -> None:
        dr = settings.sites["dr"]

        assert set(settings.sites) == {"production", "dr"}
        assert dr.chain_members_complete
        assert dr.tls is not None
        assert dr.tls.ca_file == Path("/lab/site/ca.pem")
        assert dr.datastores == {'odd "name" \\ é': Path("/lab/site/datastores/dr")}

    def test_keep_the_state_on_the_workers_volume(self) -> None:
        worker = SERVICES["worker"]
        folder = Path(worker["environment"]["FAILBACK_SETTINGS"]).parent

        assert f"worker-data:{folder}" in worker["volumes"]

    def test_the_manifest_is_where_the_lab_is_watched_for_it(self) -> None:
        assert str(practice.MANIFEST) in SERVICES["lab"]["healthcheck"]["test"]

    def test_worker_has_time_to_hand_over(self, settings: Settings) -> None:
        allowed = seconds(SERVICES["worker"]["stop_grace_period"])

        assert allowed >= 2 * settings.graceful_shutdown.total_seconds()


class TestBuildFiles:
    @dockerfiles
    def test_bases_are_pinned(self, dockerfile: Path) -> None:
        stages: set[str] = set()
        for word, rest in instructions(dockerfile):
            if word != "FROM":
                continue
            image, _, stage = rest.partition(" AS ")
            assert image in stages or is_pinned(image), image
            stages.add(stage)

    @dockerfiles
    def test_runs_as_an_ordinary_user_by_number(self, dockerfile: Path) -> None:
        users = [rest for word, rest in instructions(dockerfile) if word == "USER"]

        assert users
        assert re.fullmatch(r"[1-9]\d{3,}:[1-9]\d{3,}", users[-1])

    def test_share_one_user_because_they_share_a_volume(self) -> None:
        users = {
            rest
            for dockerfile in DOCKERFILES
            for word, rest in instructions(dockerfile)
            if word == "USER"
        }

        assert len(users) == 1

    @dockerfiles
    def test_copies_only_what_there_is_and_the_context_carries(self, dockerfile: Path) -> None:
        ignore = dockerfile.with_name(f"{dockerfile.name}.dockerignore")
        lines = ignore.read_text(encoding="utf-8").splitlines()
        carried = {line[1:] for line in lines if line.startswith("!")}

        for word, rest in instructions(dockerfile):
            if word != "COPY" or rest.startswith("--from="):
                continue
            for source in rest.split()[:-1]:
                assert (ROOT / source).exists(), source
                parents = {str(parent) for parent in Path(source).parents}
                assert source in carried or parents & carried, source

    @dockerfiles
    def test_system_packages_leave_no_lists_behind(self, dockerfile: Path) -> None:
        for word, rest in instructions(dockerfile):
            if word == "RUN" and "apt-get install" in rest:
                assert "apt-get update" in rest
                assert "--no-install-recommends" in rest
                assert "rm -rf /var/lib/apt/lists" in rest

    def test_worker_installs_locked_packages_and_our_wheel_alone(self) -> None:
        runs = [rest for word, rest in instructions(ROOT / "containers/worker.Dockerfile")]
        installs = [run for text in runs for run in text.split("&&") if "pip install" in run]

        assert len(installs) == 3
        for install in installs:
            assert "--require-hashes" in install or "--no-index --no-deps" in install

    @dockerfiles
    def test_data_folders_are_private(self, dockerfile: Path) -> None:
        # A new volume takes its mode from here, and the worker refuses a state folder that others
        # may enter.
        runs = " ".join(rest for word, rest in instructions(dockerfile) if word == "RUN")
        modes = re.findall(r"install -d .*?-m (\d+)", runs)

        assert modes == ["0700"]

    def test_images_carry_the_version_of_the_project(self) -> None:
        project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]

        for service in SERVICES.values():
            if "build" in service:
                assert service["image"].endswith(f":{project['version']}")
