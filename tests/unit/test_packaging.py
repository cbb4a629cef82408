"""What the wheel carries, what the locks promise, and what no tracked file may say."""

from __future__ import annotations

import os
import re
import subprocess
import sys
import tomllib
import zipfile
from collections.abc import Iterator
from email.parser import Parser
from pathlib import Path
from typing import Any

import pytest
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

ROOT = Path(__file__).resolve().parents[2]
OURS = {"activities", "failback", "starter", "workflows", "worker.py"}
LOCKS = ("requirements.lock", "requirements-runtime.lock")


@pytest.fixture(scope="module")
def config() -> dict[str, Any]:
    return tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The wheel, built from the checkout with the locked backend and without an index."""
    folder = tmp_path_factory.mktemp("wheel")
    built = subprocess.run(
        [sys.executable, "-m", "hatchling", "build", "-t", "wheel", "-d", str(folder)],
        cwd=ROOT,
        capture_output=True,
        text=True,
        timeout=100,
        check=False,
    )
    assert built.returncode == 0, built.stdout + built.stderr
    (found,) = folder.glob("*.whl")
    return found


@pytest.fixture(scope="module")
def names(wheel: Path) -> set[str]:
    with zipfile.ZipFile(wheel) as files:
        return set(files.namelist())


def read(wheel: Path, suffix: str) -> str:
    with zipfile.ZipFile(wheel) as files:
        (name,) = (name for name in files.namelist() if name.endswith(suffix))
        return files.read(name).decode()


def tracked() -> list[Path]:
    """The files under version control; outside a git checkout there is nothing to check."""
    listed = subprocess.run(
        ["git", "ls-files", "-z"], cwd=ROOT, capture_output=True, timeout=60, check=False
    )
    if listed.returncode != 0:
        pytest.skip("not a git checkout")
    paths = (ROOT / os.fsdecode(name) for name in listed.stdout.split(b"\0") if name)
    return [path for path in paths if path.is_file()]


def locked(name: str) -> dict[str, str]:
    """Package -> version of a lock."""
    text = (ROOT / name).read_text(encoding="utf-8")
    return {
        canonicalize_name(package): version
        for package, version in re.findall(r"^([\w.-]+)==([^\s;\\]+)", text, re.MULTILINE)
    }


class TestWheel:
    def test_carries_exactly_our_top_level_names(self, names: set[str]) -> None:
        tops = {name.split("/")[0] for name in names}

        assert {top for top in tops if not top.endswith(".dist-info")} == OURS

    def test_carries_every_file_of_the_packages_and_no_test(self, names: set[str]) -> None:
        wanted = {
            path.relative_to(ROOT).as_posix()
            for path in tracked()
            if path.relative_to(ROOT).parts[0] in OURS
        }

        assert wanted <= names
        assert [name for name in names if "test" in Path(name).stem.split("_")] == []

    def test_names_the_two_commands(self, wheel: Path) -> None:
        lines = read(wheel, "entry_points.txt").split("\n")

        assert "failback = starter.cli:main" in lines
        assert "failback-worker = worker:main" in lines

    def test_states_licence_python_and_the_runtime_requirements_only(
        self, wheel: Path, config: dict[str, Any]
    ) -> None:
        metadata = Parser().parsestr(read(wheel, "METADATA"))

        assert metadata["License-Expression"] == "Apache-2.0"
        assert metadata["Requires-Python"] == ">=3.11"
        stated = {Requirement(line) for line in metadata.get_all("Requires-Dist", [])}
        assert stated == {Requirement(line) for line in config["project"]["dependencies"]}

    def test_commands_load_from_it_alone(self, wheel: Path, tmp_path: Path) -> None:
        with zipfile.ZipFile(wheel) as files:
            files.extractall(tmp_path)
        program = (
            "import sys, importlib\n"
            "for module in ('starter.cli', 'worker'):\n"
            "    loaded = importlib.import_module(module)\n"
            "    assert loaded.__file__.startswith(sys.argv[1]), loaded.__file__\n"
            "    assert callable(loaded.main)\n"
        )

        # The tree before everything else, the checkout's own path entry notwithstanding.
        done = subprocess.run(
            [sys.executable, "-c", program, str(tmp_path)],
            cwd=tmp_path,
            env={**os.environ, "PYTHONPATH": str(tmp_path)},
            capture_output=True,
            text=True,
            timeout=60,
            check=False,
        )

        assert done.returncode == 0, done.stderr


class TestLocks:
    def requirements(self, config: dict[str, Any]) -> Iterator[Requirement]:
        for line in config["project"]["dependencies"]:
            yield Requirement(line)
        for line in config["dependency-groups"]["dev"]:
            yield Requirement(line)

    def test_satisfy_what_the_project_asks_for(self, config: dict[str, Any]) -> None:
        versions = locked("requirements.lock")

        for requirement in self.requirements(config):
            version = versions[canonicalize_name(requirement.name)]
            assert version in requirement.specifier, requirement

    def test_of_the_image_is_the_runtime_part_of_the_other(self, config: dict[str, Any]) -> None:
        everything, runtime = locked("requirements.lock"), locked("requirements-runtime.lock")

        assert runtime.items() < everything.items()
        for line in config["project"]["dependencies"]:
            assert canonicalize_name(Requirement(line).name) in runtime
        assert "pytest" not in runtime

    @pytest.mark.parametrize("name", LOCKS)
    def test_pin_every_package_by_version_and_content(self, name: str) -> None:
        text = (ROOT / name).read_text(encoding="utf-8")
        entries = re.split(r"\n(?=\S)", text.strip())

        for entry in entries:
            assert re.match(r"[\w.-]+==\S+", entry), entry
            assert re.search(r"--hash=sha256:[0-9a-f]{64}", entry), entry

    @pytest.mark.parametrize("name", LOCKS)
    def test_name_no_place_to_fetch_from(self, name: str) -> None:
        text = (ROOT / name).read_text(encoding="utf-8")

        assert not re.search(r"://|^\s*--?(i|index|extra|find|trusted)\b", text, re.MULTILINE)

    def test_environment_runs_what_they_say(self) -> None:
        listed = subprocess.run(
            [sys.executable, "-m", "pip", "list", "--format=freeze"],
            capture_output=True,
            text=True,
            timeout=60,
            check=True,
        )
        installed: dict[str, str] = {
            canonicalize_name(package): version
            for package, _, version in (line.partition("==") for line in listed.stdout.split())
        }
        # Packages for other systems are in the lock and rightly not here.
        shared = {name: version for name, version in locked(LOCKS[0]).items() if name in installed}

        assert len(shared) > 30
        assert {name: installed[name] for name in shared} == shared


# Put together from pieces, so that this file does not contain what it looks for.
REGISTRIES = [
    ".".join(pieces)
    for pieces in (
        ("pypi", "org"),
        ("python" + "hosted", "org"),
        ("crates", "io"),
        ("proxy", "golang", "org"),
        ("sum", "golang", "org"),
        ("registry", "npm" + "js", "org"),
        ("repo1", "maven", "org"),
        ("repo", "maven", "apache", "org"),
        ("deb", "debian", "org"),
        ("security", "debian", "org"),
    )
]


def forbidden() -> re.Pattern[str]:
    """Hosts of package registries, and absolute paths that only this machine has."""
    places = ["/".join(("", "work", "")), "/".join(("", "root", ""))]
    # Deep enough to mean this checkout and nothing else.
    places += [str(path) for path in (ROOT, Path.home()) if len(path.parts) > 2]
    words = "|".join(map(re.escape, REGISTRIES))
    return re.compile(rf"\b(?:{words})\b|(?<![\w.$}}*/-])(?:{'|'.join(map(re.escape, places))})")


def test_no_tracked_file_names_a_registry_or_this_machine() -> None:
    pattern = forbidden()
    found = [
        f"{path.relative_to(ROOT)}: {match[0]}"
        for path in tracked()
        if (match := pattern.search(path.read_bytes().decode("utf-8", errors="ignore")))
    ]

    assert found == []


@pytest.mark.parametrize(
    ("text", "caught"),
    [
        ("https://" + "pypi" + ".org/simple", True),
        ("see /" + "work/main/x", True),
        ('"/' + "root/.cache", True),
        ("/network/x and /home/temporal/y", False),
        ("${DIR}/" + "work/x, a/" + "root/b", False),
    ],
)
def test_what_counts_as_such(text: str, caught: bool) -> None:
    assert bool(forbidden().search(text)) is caught
