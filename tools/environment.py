"""The checkout's virtual environment, made from the lock and stamped when it is whole.

An environment cannot be moved, so it is built in place: the stamp comes last, and one without the
right stamp is made anew.
"""

from __future__ import annotations

import shutil
import sys
import tomllib
from pathlib import Path

from tools.cache import cache_dir, fingerprint, locked
from tools.host import ROOT, Host, Problem, long_step, say, tail

LOCK = "requirements.lock"


def base_python() -> Path:
    """The interpreter below any virtual environment: the one running may be about to be removed."""
    if sys.prefix == sys.base_prefix:
        return Path(sys.executable)
    named = f"python{sys.version_info.major}.{sys.version_info.minor}"
    return Path(sys.base_prefix) / "bin" / named


def packages_stamp(root: Path, python: str) -> str:
    """Changes with the lock, the interpreter and the place: scripts hold absolute paths."""
    return fingerprint([(root / LOCK).read_bytes(), python.encode(), str(root).encode()])


def project_stamp(root: Path) -> str:
    """Changes with what an installation of this project is made from, and with nothing else."""
    config = tomllib.loads((root / "pyproject.toml").read_text(encoding="utf-8"))
    wheel = config.get("tool", {}).get("hatch", {})
    return fingerprint([repr((config["project"], config["build-system"], wheel)).encode()])


def python_of(root: Path) -> Path:
    """The environment's interpreter, there or not."""
    return root / ".venv" / "bin" / "python"


def _matches(stamp: Path, wanted: str) -> bool:
    try:
        return stamp.read_text(encoding="utf-8").strip() == wanted
    except OSError:
        return False


def ensure(host: Host, root: Path = ROOT) -> Path:
    """Return the environment's interpreter, made or mended where needed."""
    venv = root / ".venv"
    packages, project = venv / ".failback-packages", venv / ".failback-project"
    want_packages = packages_stamp(root, sys.version)
    want_project = project_stamp(root)

    def ready() -> bool:
        runs = python_of(root).exists()
        return runs and _matches(packages, want_packages) and _matches(project, want_project)

    if ready():
        return python_of(root)
    with locked(cache_dir(host.env), f"venv-{fingerprint([str(root).encode()])}"):
        if ready():
            return python_of(root)
        if not _matches(packages, want_packages) or not python_of(root).exists():
            _install_packages(host, root, venv)
            packages.write_text(want_packages + "\n", encoding="utf-8")
        _install_project(host, root)
        project.write_text(want_project + "\n", encoding="utf-8")
    return python_of(root)


def _clean(host: Host) -> dict[str, str]:
    # A foreign PYTHONPATH or PYTHONHOME would leak modules into the new environment.
    return {name: value for name, value in host.env.items() if not name.startswith("PYTHON")}


def _install_packages(host: Host, root: Path, venv: Path) -> None:
    if venv.exists():
        say("the environment in .venv is old or incomplete: making it anew")
        shutil.rmtree(venv)
    with long_step("making .venv from the lock", "1 minute"):
        python = str(base_python())
        made = host.run([python, "-m", "venv", str(venv)], cwd=root, env=_clean(host))
        if made.status != 0:
            raise Problem(
                "Making the virtual environment failed; on Debian and Ubuntu it needs the package"
                f" python3-venv. Python says:\n{tail(made.output, 5)}"
            )
        _pip(host, root, "--require-hashes", "-r", LOCK)


def _install_project(host: Host, root: Path) -> None:
    # Editable: one path entry that points at the checkout, and the two commands. Built with the
    # locked hatchling and without asking any index.
    _pip(host, root, "--no-index", "--no-deps", "--no-build-isolation", "--editable", ".")


def _pip(host: Host, root: Path, *arguments: str) -> None:
    done = host.run(
        [
            str(python_of(root)),
            "-m",
            "pip",
            "install",
            "--quiet",
            "--no-input",
            "--disable-pip-version-check",
            *arguments,
        ],
        cwd=root,
        env=_clean(host),
    )
    if done.status != 0:
        raise Problem(
            "Installing Python packages failed; is the package index reachable?"
            f" pip says:\n{tail(done.output)}"
        )
