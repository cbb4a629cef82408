"""Commands of the settings: what they are told, how long they live, what is kept of their words."""

from __future__ import annotations

import json
import os
import re
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from datetime import timedelta
from pathlib import Path
from urllib.parse import quote, quote_plus

import pytest

from failback.hooks.calls import CalledVm, Calls, HookCommand, Occasion
from failback.hooks.command import Called, run_command
from failback.hooks.output import KEPT_BYTES, Tail, cleaned, secrets_in
from failback.logging import HIDDEN

ROOT = Path(__file__).parents[3]
OCCASION = Occasion(
    run="run-1",
    replica="web01",
    hook="dns",
    when="after",
    step="power_on_target",
    key="run-1/power_on_target/after/dns/1",
    replica_vm=CalledVm("web01-replica", "dr", "vm-1"),
    target_vm=CalledVm("web 01; rm -rf /", "production", "vm-2"),
)


def quiet() -> None:
    """A beat of an attempt that may go on."""


def run(*argv: str, timeout_s: float = 60.0, said: bytes = b"") -> Called:
    return run_command(argv, {}, said, timeout_s=timeout_s, beat=quiet)


def shell(script: str, timeout_s: float = 60.0) -> Called:
    return run("/bin/sh", "-c", script, timeout_s=timeout_s)


def quote_from_bytes_lower(text: str) -> str:
    return re.sub("%..", lambda found: found.group().lower(), quote(text))


def gone(pid: int) -> bool:
    """Whether a process is no more, or waits only for being collected."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] == "Z"
    except OSError:
        return True


def until_gone(pid: int) -> None:
    deadline = time.monotonic() + 60
    while not gone(pid):
        assert time.monotonic() < deadline, f"process {pid} still runs"
        time.sleep(0.02)


def number_in(file: Path) -> int:
    deadline = time.monotonic() + 60
    while not (file.exists() and file.read_text().endswith("\n")):
        assert time.monotonic() < deadline, f"{file} was not written"
        time.sleep(0.02)
    return int(file.read_text())


def test_a_command_is_told_the_occasion_by_variables_and_as_json(tmp_path: Path) -> None:
    script = tmp_path / "a hook"
    script.write_text('#!/bin/sh\nenv | grep ^FAILBACK_ | sort\necho "arg $1"\ncat\n')
    script.chmod(0o700)
    calls = Calls({"dns": HookCommand((str(script), "x; y"))})

    made = calls.call(OCCASION, timedelta(seconds=60), quiet)

    *variables, argument, document = made.output.splitlines()
    assert (made.ok, argument) == (True, "arg x; y")
    assert dict(line.split("=", 1) for line in variables) == {
        "FAILBACK_RUN": "run-1",
        "FAILBACK_REPLICA": "web01",
        "FAILBACK_HOOK": "dns",
        "FAILBACK_WHEN": "after",
        "FAILBACK_STEP": "power_on_target",
        "FAILBACK_IDEMPOTENCY_KEY": "run-1/power_on_target/after/dns/1",
        "FAILBACK_REPLICA_VM": "web01-replica",
        "FAILBACK_REPLICA_SITE": "dr",
        "FAILBACK_REPLICA_MOREF": "vm-1",
        "FAILBACK_TARGET_VM": "web 01; rm -rf /",
        "FAILBACK_TARGET_SITE": "production",
        "FAILBACK_TARGET_MOREF": "vm-2",
    }
    told = json.loads(document)
    assert (told["version"], told["target_vm"]["name"]) == (1, "web 01; rm -rf /")
    assert told["idempotency_key"] == OCCASION.key


def test_a_command_gets_none_of_the_workers_credentials(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TEMPORAL_API_KEY", "geheim")

    assert "geheim" not in run("/usr/bin/env").output


@pytest.mark.parametrize(
    ("script", "ok", "evidence"),
    [
        ("exit 0", True, "exit status 0"),
        ("exit 3", False, "exit status 3"),
        ("kill -9 $$", False, "signal 9"),
    ],
)
def test_the_exit_status_is_the_result(script: str, ok: bool, evidence: str) -> None:
    made = shell(f"echo said; echo wrong >&2; {script}")

    assert (made.ok, made.output) == (ok, "said\nwrong")
    assert evidence in made.evidence


def test_a_program_that_is_not_there_is_a_result() -> None:
    made = run("/nowhere/hook")

    assert not made.ok
    assert "could not be started" in made.evidence
    assert made.output == "/nowhere/hook cannot be started: No such file or directory"


def test_a_command_need_not_read_what_it_is_told() -> None:
    assert run("/bin/true", said=b"x" * 30_000).ok


def test_a_command_that_is_late_is_ended_with_everything_it_started(tmp_path: Path) -> None:
    pid = tmp_path / "pid"

    made = shell(
        f"trap '' TERM; (trap '' TERM; echo $$ >/dev/null; sleep 600) & "
        f"echo $! > '{pid}'; echo begun; wait",
        timeout_s=0.5,
    )

    assert (made.ok, made.output) == (False, "begun")
    assert made.evidence == "it did not end within 0.5 s and was ended"
    until_gone(number_in(pid))


def test_a_command_ends_when_the_attempt_may_not_go_on(tmp_path: Path) -> None:
    pid = tmp_path / "pid"

    def beat() -> None:
        if pid.exists():
            raise InterruptedError

    with pytest.raises(InterruptedError):
        run_command(
            ("/bin/sh", "-c", f"echo $$ > '{pid}'; exec sleep 600"),
            {},
            b"",
            timeout_s=60,
            beat=beat,
        )

    until_gone(number_in(pid))


def test_a_command_does_not_outlive_a_worker_that_is_killed(tmp_path: Path) -> None:
    pid = tmp_path / "pid"
    code = (
        "from failback.hooks.command import run_command\n"
        f"run_command(('/bin/sh', '-c', \"echo $$ > '{pid}'; exec sleep 600\"), {{}}, b'',"
        " timeout_s=600, beat=lambda: None)"
    )
    worker = subprocess.Popen([sys.executable, "-c", code], cwd=ROOT)
    command = number_in(pid)

    worker.send_signal(signal.SIGKILL)
    worker.wait()

    until_gone(command)


def test_what_runs_on_in_the_background_is_not_waited_for(tmp_path: Path) -> None:
    pid = tmp_path / "pid"

    made = shell(f"sleep 600 & echo $! > '{pid}'; echo done")

    assert (made.ok, made.output) == (True, "done")
    os.kill(number_in(pid), signal.SIGKILL)


def test_endless_output_is_kept_in_bounded_memory() -> None:
    made = shell("i=0; while [ $i -lt 40000 ]; do i=$((i+1)); echo line $i; done")

    assert made.ok
    assert made.output.startswith("[...]")
    assert made.output.endswith("line 40000")
    assert len(made.output.encode()) <= KEPT_BYTES


def test_secrets_and_control_characters_do_not_get_through(tmp_path: Path) -> None:
    password, token = tmp_path / "password", tmp_path / "headers"
    password.write_text("gE-heim!\n")
    token.write_text("Authorization: Bearer abc.def\nX-Key: k3yk3y\n")
    secrets = secrets_in([password, token, tmp_path / "none"])
    text = (
        "the word is gE-heim!, and abc.def\nX k3yk3y\npassword=open sesame\n"
        "https://ann:pw@host/x\x1b[31mred\x07"
    )

    said = cleaned(text, secrets)

    for secret in ("gE-heim!", "abc.def", "k3yk3y", "=open", "ann:pw", "\x1b", "\x07"):
        assert secret not in said
    assert "the word is [hidden]" in said


@pytest.mark.parametrize("encode", [json.dumps, quote, quote_plus, quote_from_bytes_lower])
def test_a_secret_is_hidden_also_as_json_or_a_url_repeats_it(
    encode: Callable[[str], str],
) -> None:
    secret = 'p4ss"w\u00f6rd\\x/y z'

    said = cleaned(f"you sent {encode(secret)}!", [secret])

    assert "p4ss" not in said and "y z" not in said and "y+z" not in said
    assert HIDDEN in said


def test_the_rest_of_a_secret_whose_beginning_was_forgotten_is_dropped() -> None:
    tail, secret = Tail(limit=64), "0123456789abcdef"
    tail.add(b"x" * 100 + secret.encode() + b"y" * 56)

    assert "89abcdef" not in tail.text([secret])
    assert tail.text([secret]).endswith("yyyy")


def test_what_is_kept_fits_also_in_other_alphabets() -> None:
    tail = Tail()
    tail.add("ß€😀".encode() * 4000)

    said = tail.text()
    assert KEPT_BYTES - 20 < len(said.encode()) <= KEPT_BYTES
    assert "�" not in said


def test_an_unknown_hook_is_a_result() -> None:
    made = Calls().call(OCCASION, timedelta(seconds=1), quiet)

    assert (made.ok, made.evidence) == (False, "the worker's settings have no hook dns")
    assert Calls({"a": HookCommand(("/x",))}).unknown(["b", "a", "b"]) == ("b",)
