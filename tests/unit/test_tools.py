"""tools/: which binaries are accepted, how the cache behaves, what people are told. No network."""

from __future__ import annotations

import io
import json
import os
import shutil
import subprocess
import sys
import tarfile
import time
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from tools import cache, environment, golang, system, temporal_binary
from tools.go_program import LAB
from tools.host import ROOT, Done, Host, Problem
from tools.host import run as really_run

TESTED_CLI, TESTED_SERVER = next(iter(temporal_binary.TESTED.items()))
TESTED_ANSWER = f"temporal version {TESTED_CLI} (Server {TESTED_SERVER}, UI 2.50.1)"


def script(path: Path, *lines: str) -> Path:
    """An executable that runs these lines of shell."""
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("\n".join(["#!/bin/sh", *lines, ""]), encoding="utf-8")
    path.chmod(0o755)
    return path


def says(answer: str) -> str:
    return f"echo '{answer}'"


class Calls:
    """Stands in for running commands: remembers them, and answers by program name."""

    def __init__(self, **answers: Done | Callable[[Sequence[str]], Done]) -> None:
        self.answers = answers
        self.seen: list[list[str]] = []

    def __call__(self, argv: Sequence[str], **_: Any) -> Done:
        self.seen.append(list(argv))
        answer = self.answers.get(Path(argv[0]).name.replace("-", "_"), Done(0, ""))
        return answer(argv) if callable(answer) else answer


@pytest.fixture
def bin_dir(tmp_path: Path) -> Path:
    folder = tmp_path / "a bin"
    folder.mkdir()
    return folder


def host(tmp_path: Path, bin_dir: Path, **changes: Any) -> Host:
    """A machine whose only programs are in `bin_dir`, with a cache of its own."""
    env = {"PATH": str(bin_dir), "FAILBACK_CACHE": str(tmp_path / "the cache")}
    env.update(changes.pop("env", {}))
    values: dict[str, Any] = {
        "system": "linux",
        "machine": "x86_64",
        "is_root": False,
        "os_release": "",
        "system_folders": (),
    }
    return Host(env=env, **(values | changes))


class TestTemporalVersions:
    @pytest.mark.parametrize(
        ("text", "versions"),
        [
            (TESTED_ANSWER, (TESTED_CLI, TESTED_SERVER)),
            ("temporal version v1.5.1 (Server v1.29.1, UI 2.42)\n", ("1.5.1", "1.29.1")),
            ("temporal version 1.5.1 (Server 1.29.1)", ("1.5.1", "1.29.1")),
            ("tctl version 1.18", None),
            ("", None),
        ],
    )
    def test_are_read_from_what_the_program_says(
        self, text: str, versions: tuple[str, str] | None
    ) -> None:
        assert temporal_binary.parse_versions(text) == versions

    @pytest.mark.parametrize(
        ("answer", "accepted"),
        [
            (TESTED_ANSWER, True),
            (TESTED_ANSWER.replace(TESTED_CLI, "1.0.0"), False),
            # A build of ours from other modules: the right release around another server.
            (TESTED_ANSWER.replace(TESTED_SERVER, "1.30.0"), False),
            ("segmentation fault", False),
        ],
    )
    def test_decide_whether_one_on_path_is_used(
        self, tmp_path: Path, bin_dir: Path, answer: str, accepted: bool
    ) -> None:
        program = script(bin_dir / "temporal", says(answer))

        found = temporal_binary.locate(host(tmp_path, bin_dir))

        assert found == (program if accepted else None)

    def test_pinned_modules_carry_the_tested_server(self) -> None:
        pins = (temporal_binary.MODULE / "go.mod").read_text(encoding="utf-8")

        assert f"github.com/temporalio/cli v{TESTED_CLI} " in pins
        assert f"go.temporal.io/server v{TESTED_SERVER} " in pins

    def test_one_for_another_machine_is_no_crash(self, tmp_path: Path, bin_dir: Path) -> None:
        (bin_dir / "temporal").write_bytes(b"\x7fELF of another machine")
        (bin_dir / "temporal").chmod(0o755)

        assert temporal_binary.locate(host(tmp_path, bin_dir)) is None


class TestObtainingTemporal:
    def archive(self, answer: str) -> bytes:
        content = f"#!/bin/sh\necho '{answer}'\n".encode()
        packed = io.BytesIO()
        with tarfile.open(fileobj=packed, mode="w:gz") as files:
            member = tarfile.TarInfo("temporal")
            member.size = len(content)
            files.addfile(member, io.BytesIO(content))
        return packed.getvalue()

    def site(self, answer: str, asked: list[str]) -> temporal_binary.Fetch:
        info = {"archiveUrl": "https://example.invalid/a.tar.gz", "fileToExtract": "temporal"}

        def fetch(url: str, _seconds: float) -> bytes:
            asked.append(url)
            return self.archive(answer) if url.endswith(".tar.gz") else json.dumps(info).encode()

        return fetch

    def unreachable(self, _url: str, _seconds: float) -> bytes:
        raise OSError("no route")

    def test_downloads_the_tested_release_once(self, tmp_path: Path, bin_dir: Path) -> None:
        asked: list[str] = []
        machine = host(tmp_path, bin_dir)

        first = temporal_binary.ensure(machine, self.site(TESTED_ANSWER, asked))
        second = temporal_binary.ensure(machine, self.site(TESTED_ANSWER, asked))

        assert first == second
        assert temporal_binary.is_tested(machine, first)
        assert len(asked) == 2, "one question, one archive"
        assert f"/v{TESTED_CLI}?" in asked[0]

    def test_an_untested_download_is_not_kept(self, tmp_path: Path, bin_dir: Path) -> None:
        other = TESTED_ANSWER.replace(TESTED_SERVER, "1.99.0")

        with pytest.raises(Problem, match="install Go"):
            temporal_binary.ensure(host(tmp_path, bin_dir), self.site(other, []))

        assert temporal_binary.locate(host(tmp_path, bin_dir)) is None

    def test_without_network_and_go_one_sentence_says_what_to_install(
        self, tmp_path: Path, bin_dir: Path
    ) -> None:
        with pytest.raises(Problem) as refusal:
            temporal_binary.ensure(host(tmp_path, bin_dir), self.unreachable)

        assert str(refusal.value) == (
            f"Go is needed to build the Temporal server {TESTED_SERVER}:"
            " install Go 1.26.8 or newer and put it on PATH."
        )

    def test_without_network_it_is_built_from_the_pinned_modules(
        self, tmp_path: Path, bin_dir: Path
    ) -> None:
        # A Go that "builds" a script saying what the real binary would.
        script(
            bin_dir / "go",
            'if [ "$1" = env ]; then echo go1.26.8; echo local; exit; fi',
            'while [ "$1" != -o ]; do shift; done',
            f'printf "#!/bin/sh\\necho \'{TESTED_ANSWER}\'\\n" > "$2"; /bin/chmod +x "$2"',
        )

        program = temporal_binary.ensure(host(tmp_path, bin_dir), self.unreachable)

        assert program.is_relative_to(tmp_path / "the cache")
        assert temporal_binary.is_tested(Host(), program)

    def test_no_download_is_tried_where_that_is_not_wanted(
        self, tmp_path: Path, bin_dir: Path
    ) -> None:
        asked: list[str] = []
        machine = host(tmp_path, bin_dir, env={"FAILBACK_NO_DOWNLOAD": "1"})

        with pytest.raises(Problem):
            temporal_binary.ensure(machine, self.site(TESTED_ANSWER, asked))

        assert asked == []

    def test_a_look_up_that_hangs_costs_only_its_time_limit(self) -> None:
        def hangs(_url: str, _seconds: float) -> bytes:
            time.sleep(5)
            return b""

        begun = time.monotonic()
        with pytest.raises(TimeoutError):
            temporal_binary._within(0.05, hangs, "https://example.invalid")

        assert time.monotonic() - begun < 2

    def test_a_named_binary_wins_and_must_exist(self, tmp_path: Path, bin_dir: Path) -> None:
        named = script(tmp_path / "mine" / "temporal", says("temporal version 9 (Server 9)"))
        machine = host(tmp_path, bin_dir, env={"FAILBACK_TEMPORAL": str(named)})
        assert temporal_binary.ensure(machine, self.unreachable) == named

        named.unlink()
        with pytest.raises(Problem, match=r"FAILBACK_TEMPORAL names .* not there"):
            temporal_binary.ensure(machine, self.unreachable)


class TestGo:
    @pytest.mark.parametrize(
        ("text", "version"),
        [
            ("go1.26.8", (1, 26, 8)),
            ("1.22", (1, 22)),
            ("go1.27rc1", (1, 27)),
            ("devel", ()),
        ],
    )
    def test_versions(self, text: str, version: tuple[int, ...]) -> None:
        assert golang.parse_version(text) == version

    @pytest.mark.parametrize(
        ("version", "toolchain", "refusal"),
        [
            ("go1.26.8", "local", None),
            ("go1.27.0", "local", None),
            ("go1.26.7", "local", "Go 1.26.7 is too old to build it: install Go 1.26.8 or newer"),
            # This one fetches the newer toolchain by itself.
            ("go1.24.0", "auto", None),
            ("go1.20.3", "auto", "Go 1.20.3 is too old"),
        ],
    )
    def test_too_old_is_one_sentence(
        self, tmp_path: Path, bin_dir: Path, version: str, toolchain: str, refusal: str | None
    ) -> None:
        go = script(bin_dir / "go", says(version), says(toolchain))
        go_mod = tmp_path / "go.mod"
        go_mod.write_text("module x\n\ngo 1.26.8\n", encoding="utf-8")

        if refusal is None:
            assert golang.require_go(host(tmp_path, bin_dir), go_mod, "it") == go
        else:
            with pytest.raises(Problem, match=refusal):
                golang.require_go(host(tmp_path, bin_dir), go_mod, "it")


class TestCache:
    @pytest.mark.parametrize(
        ("env", "expected"),
        [
            ({"FAILBACK_CACHE": "/own place"}, "/own place"),
            ({"XDG_CACHE_HOME": "/xdg", "HOME": "/home/me"}, "/xdg/failback"),
            ({"HOME": "/home/me"}, "/home/me/.cache/failback"),
            ({"FAILBACK_CACHE": "", "XDG_CACHE_HOME": "", "HOME": "/h"}, "/h/.cache/failback"),
        ],
    )
    def test_place(self, env: dict[str, str], expected: str) -> None:
        assert cache.cache_dir(env) == Path(expected)

    def test_failed_production_leaves_nothing(self, tmp_path: Path) -> None:
        def half(target: Path) -> None:
            target.write_bytes(b"half")
            target.chmod(0o755)
            raise Problem("the disk is full")

        with pytest.raises(Problem):
            cache.obtain(tmp_path, "kind", "key", "program", half)

        assert list((tmp_path / "kind").iterdir()) == []
        assert cache.find(tmp_path, "kind", "key", "program") is None

    def test_what_a_killed_process_left_is_removed(self, tmp_path: Path) -> None:
        left = tmp_path / "kind" / "tmp-killed"
        left.mkdir(parents=True)

        cache.obtain(tmp_path, "kind", "key", "program", lambda target: target.touch())

        assert not left.exists()

    def test_an_entry_that_lost_its_program_is_made_anew(self, tmp_path: Path) -> None:
        made = cache.obtain(tmp_path, "kind", "key", "program", lambda target: target.touch())
        made.unlink()

        again = cache.obtain(tmp_path, "kind", "key", "program", lambda target: target.touch())

        assert again == made
        assert os.access(again, os.X_OK)

    def test_only_the_latest_used_survive(self, tmp_path: Path) -> None:
        for number in range(cache.KEPT_PER_KIND + 3):
            made = cache.obtain(tmp_path, "kind", f"k{number}", "p", lambda target: target.touch())
            os.utime(made.parent, (number, number))
            if number == 0:
                # Used all the time, so never the oldest.
                os.utime(made.parent, (10**6, 10**6))

        kept = {entry.name for entry in (tmp_path / "kind").iterdir()}
        assert len(kept) == cache.KEPT_PER_KIND
        assert "k0" in kept
        assert "k1" not in kept

    def test_two_checkouts_at_once_do_the_work_once(self, tmp_path: Path) -> None:
        program = (
            "import sys, time; from pathlib import Path; from tools.cache import obtain\n"
            "folder = Path(sys.argv[1])\n"
            "def produce(target):\n"
            "    with open(folder / 'log', 'a') as log: log.write('made\\n')\n"
            "    time.sleep(0.5); target.write_bytes(b'whole')\n"
            "print(obtain(folder / 'c', 'kind', 'key', 'p', produce).read_bytes())\n"
        )
        both = [
            subprocess.Popen(
                [sys.executable, "-c", program, str(tmp_path)],
                cwd=ROOT,
                stdout=subprocess.PIPE,
                stderr=subprocess.PIPE,
            )
            for _ in range(2)
        ]
        answers = [process.communicate(timeout=30) for process in both]

        assert [out for out, _ in answers] == [b"b'whole'\n"] * 2
        assert (tmp_path / "log").read_text(encoding="utf-8") == "made\n"
        assert sum(b"waiting for another process" in err for _, err in answers) <= 1

    def test_a_killed_holder_leaves_the_lock_to_the_command_it_ran(self, tmp_path: Path) -> None:
        hold = (
            "import sys; from pathlib import Path\n"
            "from tools.cache import locked; from tools.host import run\n"
            "with locked(Path(sys.argv[1]), 'x'):\n"
            "    run(['sh', '-c', 'touch \"$0/runs\"; sleep 2; touch \"$0/ended\"', sys.argv[1]])\n"
        )
        holder = subprocess.Popen([sys.executable, "-c", hold, str(tmp_path)], cwd=ROOT)
        deadline = time.monotonic() + 30
        while not (tmp_path / "runs").exists():
            assert time.monotonic() < deadline
            time.sleep(0.02)

        holder.kill()
        holder.wait(timeout=30)
        with cache.locked(tmp_path, "x"):
            assert (tmp_path / "ended").exists()

    def test_a_folder_that_cannot_be_written_is_one_sentence(self, tmp_path: Path) -> None:
        (tmp_path / "file").touch()

        with (
            pytest.raises(Problem, match=r"cannot be written .*: set FAILBACK_CACHE"),
            cache.locked(tmp_path / "file", "x"),
        ):
            pass

    def test_fingerprint_separates_its_parts(self) -> None:
        assert cache.fingerprint([b"ab", b"c"]) != cache.fingerprint([b"a", b"bc"])


class TestSystemPrograms:
    DEBIAN = 'NAME="Debian GNU/Linux"\nID=debian\n'

    def test_nothing_is_installed_where_all_is_there(self, tmp_path: Path, bin_dir: Path) -> None:
        for program in system.PROGRAMS:
            script(bin_dir / program)
        calls = Calls()

        found = system.ensure(host(tmp_path, bin_dir, run=calls))

        assert found == {program: bin_dir / program for program in system.PROGRAMS}
        assert calls.seen == []

    @pytest.mark.parametrize(
        ("os_release", "sentence"),
        [
            (
                DEBIAN,
                "Please install nbdkit and e2fsprogs, which needs root:"
                " sudo apt-get install -y --no-install-recommends nbdkit e2fsprogs",
            ),
            (
                "ID=fedora\n",
                "Please install nbdkit and e2fsprogs with your system's package manager.",
            ),
        ],
    )
    def test_who_may_not_install_is_told_what_to_do(
        self, tmp_path: Path, bin_dir: Path, os_release: str, sentence: str
    ) -> None:
        script(bin_dir / "apt-get")
        calls = Calls()

        with pytest.raises(Problem) as refusal:
            system.ensure(host(tmp_path, bin_dir, run=calls, os_release=os_release))

        assert str(refusal.value) == sentence
        assert calls.seen == []

    def test_root_installs_and_fetches_the_lists_only_when_needed(
        self, tmp_path: Path, bin_dir: Path
    ) -> None:
        script(bin_dir / "apt-get")
        for program in ("mke2fs", "debugfs", "e2fsck"):
            script(bin_dir / program)
        updated: list[bool] = []

        def apt_get(argv: Sequence[str]) -> Done:
            if "update" in argv:
                updated.append(True)
            elif not updated:
                return Done(100, "E: Unable to locate package nbdkit")
            else:
                script(bin_dir / "nbdkit")
            return Done(0, "")

        calls = Calls(apt_get=apt_get)
        like_ubuntu = 'ID=mint\nID_LIKE="ubuntu debian"\n'

        found = system.ensure(
            host(tmp_path, bin_dir, run=calls, is_root=True, os_release=like_ubuntu)
        )

        assert found["nbdkit"] == bin_dir / "nbdkit"
        assert [argv[1] for argv in calls.seen] == ["install", "update", "install"]
        assert "e2fsprogs" not in calls.seen[0]

    def test_an_installation_that_fails_says_why(self, tmp_path: Path, bin_dir: Path) -> None:
        script(bin_dir / "apt-get")
        calls = Calls(apt_get=Done(100, "E: no space left"))

        with pytest.raises(Problem, match="no space left"):
            system.ensure(host(tmp_path, bin_dir, run=calls, is_root=True, os_release=self.DEBIAN))


class Checkout:
    """A checkout to make an environment in, and a machine on which that takes no time."""

    def __init__(self, tmp_path: Path, bin_dir: Path) -> None:
        self.root = tmp_path / "a checkout"
        self.root.mkdir()
        (self.root / environment.LOCK).write_text("one==1\n", encoding="utf-8")
        shutil.copy(ROOT / "pyproject.toml", self.root)
        self.venv = self.root / ".venv"
        self.pip_status = 0
        self.calls: list[list[str]] = []
        self.host = host(tmp_path, bin_dir, run=self.run)

    def run(self, argv: Sequence[str], **_: Any) -> Done:
        self.calls.append(list(argv))
        if argv[1:3] == ["-m", "venv"]:
            script(self.venv / "bin" / "python")
            return Done(0, "")
        return Done(self.pip_status, "pip's reason")

    def ensure(self) -> list[str]:
        """Ensure, and return what was done: made, packages, project."""
        self.calls.clear()
        assert environment.ensure(self.host, self.root) == self.venv / "bin" / "python"
        return [
            "made" if "venv" in argv[:3] else "project" if "--editable" in argv else "packages"
            for argv in self.calls
        ]


class TestEnvironment:
    @pytest.fixture
    def checkout(self, tmp_path: Path, bin_dir: Path) -> Checkout:
        return Checkout(tmp_path, bin_dir)

    def test_is_made_once(self, checkout: Checkout) -> None:
        assert checkout.ensure() == ["made", "packages", "project"]
        assert checkout.ensure() == []

    def test_an_interrupted_one_is_made_anew(self, checkout: Checkout) -> None:
        checkout.pip_status = 1
        with pytest.raises(Problem, match="pip's reason"):
            checkout.ensure()
        (checkout.venv / "half").touch()

        checkout.pip_status = 0

        assert checkout.ensure() == ["made", "packages", "project"]
        assert not (checkout.venv / "half").exists()

    def test_another_lock_makes_another_one(self, checkout: Checkout) -> None:
        checkout.ensure()
        (checkout.root / environment.LOCK).write_text("one==2\n", encoding="utf-8")

        assert checkout.ensure() == ["made", "packages", "project"]

    def test_a_moved_checkout_makes_its_own(self, checkout: Checkout) -> None:
        checkout.ensure()
        checkout.root = checkout.root.rename(checkout.root.with_name("moved"))
        checkout.venv = checkout.root / ".venv"

        assert checkout.ensure() == ["made", "packages", "project"]

    def test_a_new_command_installs_the_project_alone(self, checkout: Checkout) -> None:
        checkout.ensure()
        config = checkout.root / "pyproject.toml"
        text = config.read_text(encoding="utf-8")
        config.write_text(
            text.replace("[project.scripts]", '[project.scripts]\nx = "x:x"'), encoding="utf-8"
        )

        assert checkout.ensure() == ["project"]

    def test_another_setting_of_a_checker_changes_nothing(self, checkout: Checkout) -> None:
        checkout.ensure()
        config = checkout.root / "pyproject.toml"
        text = config.read_text(encoding="utf-8")
        config.write_text(text.replace("line-length = 100", "line-length = 99"), encoding="utf-8")

        assert checkout.ensure() == []


class TestLab:
    @pytest.fixture
    def module(self, tmp_path: Path) -> Path:
        module = tmp_path / "lab"
        (module / "web").mkdir(parents=True)
        (module / "go.mod").write_text("module lab\n\ngo 1.26\n", encoding="utf-8")
        (module / "main.go").write_text("package main\n", encoding="utf-8")
        return module

    @pytest.mark.parametrize(
        ("name", "matters"),
        [
            ("main.go", True),
            ("web/page.html", True),
            ("go.mod", True),
            ("main_test.go", False),
            ("README.md", False),
            ("testdata/x.json", False),
            (".cache/x.go", False),
            (LAB.program, False),
        ],
    )
    def test_is_built_anew_when_its_sources_change(
        self, tmp_path: Path, bin_dir: Path, module: Path, name: str, matters: bool
    ) -> None:
        machine = host(tmp_path, bin_dir)
        before = replace(LAB, module=module).cache_key(machine)
        (module / name).parent.mkdir(exist_ok=True)
        (module / name).write_text("another", encoding="utf-8")

        assert (replace(LAB, module=module).cache_key(machine) != before) is matters

    def test_an_edit_during_the_build_spoils_it(
        self, tmp_path: Path, bin_dir: Path, module: Path
    ) -> None:
        # A Go whose compilation takes so long that somebody saves a file meanwhile.
        script(
            bin_dir / "go",
            'if [ "$1" = env ]; then echo go1.26.8; echo local; exit; fi',
            'if [ "$1" = list ]; then echo lab; exit; fi',
            f"echo another > '{module}/main.go'",
            'while [ "$1" != -o ]; do shift; done',
            'echo > "$2"',
        )
        machine = host(tmp_path, bin_dir)

        with pytest.raises(Problem, match="changed while it was built"):
            replace(LAB, module=module).ensure(machine)

        assert replace(LAB, module=module).ensure(machine).is_relative_to(tmp_path / "the cache")

    def test_is_found_where_go_first_downloads(
        self, tmp_path: Path, bin_dir: Path, module: Path
    ) -> None:
        # A machine without a module cache: `go list` tells what it fetches, among its answer.
        script(
            bin_dir / "go",
            'if [ "$1" = env ]; then echo go1.26.8; echo local; exit; fi',
            'if [ "$1" = list ]; then echo "go: downloading example.com/x v1.0.0" >&2; fi',
            'if [ "$1" = list ]; then echo lab/serve; exit; fi',
            'while [ "$1" != -o ]; do shift; done',
            'echo > "$2"',
        )
        machine = host(tmp_path, bin_dir)

        assert replace(LAB, module=module).ensure(machine).is_relative_to(tmp_path / "the cache")

    def test_without_sources_or_go_one_sentence_says_so(
        self, tmp_path: Path, bin_dir: Path, module: Path
    ) -> None:
        with pytest.raises(Problem, match=r"sources are not at .*: restore them from git"):
            replace(LAB, module=tmp_path / "elsewhere").ensure(host(tmp_path, bin_dir))
        with pytest.raises(Problem, match=r"install Go 1.26 or newer"):
            replace(LAB, module=module).ensure(host(tmp_path, bin_dir))


class TestCommand:
    def call(self, *arguments: str, cwd: Path, **env: str) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            [sys.executable, str(ROOT / "tools" / "ensure.py"), *arguments],
            cwd=cwd,
            env={"PATH": os.defpath, **env},
            capture_output=True,
            text=True,
            timeout=60,
            check=False,
        )

    def test_prints_paths_on_stdout_from_any_folder(self, tmp_path: Path) -> None:
        named = script(tmp_path / "with a space" / "temporal")

        done = self.call("--print", "temporal", cwd=tmp_path, FAILBACK_TEMPORAL=str(named))

        assert (done.returncode, done.stdout) == (0, f"{named}\n"), done.stderr

    def test_a_problem_is_a_sentence_and_no_traceback(self, tmp_path: Path) -> None:
        done = self.call("temporal", cwd=tmp_path, FAILBACK_TEMPORAL="/nowhere")

        assert done.returncode == 1
        assert done.stdout == ""
        assert done.stderr == (
            "failback: FAILBACK_TEMPORAL names /nowhere, which is not there: unset or mend it.\n"
        )

    def test_make_works_in_a_folder_with_a_space(self, tmp_path: Path) -> None:
        checkout = tmp_path / "a checkout"
        checkout.mkdir()
        shutil.copy(ROOT / "Makefile", checkout)

        done = subprocess.run(
            ["make", "help"], cwd=checkout, capture_output=True, text=True, timeout=60, check=False
        )

        assert done.returncode == 0, done.stderr
        assert {"make demo", "make test", "make lint"} <= {
            " ".join(line.split()[:2]) for line in done.stdout.splitlines()
        }


def test_commands_that_do_not_end_are_ended() -> None:
    done = really_run(["sleep", "30"], timeout_s=0.1)

    assert done.status == 124
    assert "no end after" in done.output
