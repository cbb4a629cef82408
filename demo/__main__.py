"""`python -m demo`: fail a practice VM back and prove the result; `stop FOLDER` ends a kept one.

DEMO=undo takes the other branch; KEEP=1 leaves everything running; KEEP_AT=decision stops there.
DEMO_BANDWIDTH changes how fast pass 1 reads, in bytes per second.
Exit status: 0 all proofs hold, 1 one does not or something failed, 130 and 143 interrupted.
"""

from __future__ import annotations

import asyncio
import os
import shlex
import shutil
import signal
import sys
import tempfile
from pathlib import Path
from types import FrameType

from rich.console import Console

from demo import story
from demo.processes import ROOT, STOPS, DemoFailed, Processes, stop_recorded
from demo.site import KEY, Site
from failback.errors import FailbackError
from tools import paths
from tools.host import Problem

BANDWIDTH = 10_000_000
"""Bytes read per second: pass 1 takes some seconds, so that there is a middle to be killed in."""

DONE, FAILED, MISUSED = 0, 1, 2
USE = "Use: python -m demo [stop FOLDER], with DEMO=commit or DEMO=undo, KEEP=1, KEEP_AT=decision."


class Interrupted(KeyboardInterrupt):
    """Ctrl-C or a request to end. A KeyboardInterrupt, because asyncio hands over no other."""

    def __init__(self, number: int) -> None:
        super().__init__(number)
        self.number = number


def interrupt(number: int, _: FrameType | None) -> None:
    raise Interrupted(number)


def main(arguments: list[str]) -> int:
    """Run the demo, or stop a kept one."""
    console = Console(width=None if sys.stdout.isatty() else 140)
    branch = os.environ.get("DEMO") or "commit"
    try:
        if arguments[:1] == ["stop"] and len(arguments) == 2:
            return stop(console, Path(arguments[1]))
        if arguments or branch not in ("commit", "undo"):
            console.print(USE, highlight=False, markup=False)
            return MISUSED
        return perform(console, branch, keep=os.environ.get("KEEP", "0") not in ("", "0"))
    except (DemoFailed, FailbackError, Problem) as error:
        complain(console, str(error))
        return FAILED


def stop(console: Console, folder: Path) -> int:
    """End what a kept demo left running, and remove its files."""
    ended = stop_recorded(folder)
    shutil.rmtree(folder)
    console.print(f"{ended} processes ended, {folder} removed.", soft_wrap=True, markup=False)
    return DONE


def perform(console: Console, branch: str, *, keep: bool) -> int:
    """Tell the story in a folder of its own; on every way out nothing is left but what is kept."""
    (ROOT / ".demo").mkdir(mode=0o700, exist_ok=True)
    processes = Processes(Path(tempfile.mkdtemp(prefix="run-", dir=ROOT / ".demo")), keep)
    decide = not (keep and os.environ.get("KEEP_AT") == "decision")
    status, kept = FAILED, False
    try:
        for number in STOPS:
            signal.signal(number, interrupt)
        site = Site(processes, int(os.environ.get("DEMO_BANDWIDTH") or BANDWIDTH))
        proven = asyncio.run(story.tell(site, console, undo=branch == "undo", decide=decide))
        status, kept = DONE if proven else FAILED, keep
        if not proven:
            complain(console, "A proof does not hold.")
        if kept:
            look_around(console, site, decided=decide)
    except (DemoFailed, FailbackError, Problem) as error:
        complain(console, f"The demo failed: {error}")
    except KeyboardInterrupt as interrupted:
        hold_still()
        console.print("Interrupted: everything is being stopped.")
        kept = False
        status = 128 + (interrupted.number if isinstance(interrupted, Interrupted) else 2)
    finally:
        hold_still()
        if not kept:
            processes.stop()
            if status == FAILED:
                complain(console, f"Logs: {processes.folder}")
            else:
                shutil.rmtree(processes.folder)
    return status


def hold_still() -> None:
    """From now on a Ctrl-C must not disturb the clean-up."""
    for number in STOPS:
        signal.signal(number, signal.SIG_IGN)


def complain(console: Console, text: str) -> None:
    console.print(text, style="bold red", soft_wrap=True, markup=False, highlight=False)


def look_around(console: Console, site: Site, *, decided: bool) -> None:
    """Everything stays up: say how to look at it and how to end it."""
    failback, temporal = ".venv/bin/failback", shlex.quote(str(paths.temporal()))
    workflow = f"--workflow-id failback/{KEY}"
    lines = [
        "",
        "Everything is left running. In another terminal, from this checkout:",
        f"  export TEMPORAL_ADDRESS=127.0.0.1:{site.port}",
        f"  export FAILBACK_SETTINGS={shlex.quote(str(site.settings))}",
        f"  {failback} status {KEY}",
        f"  {failback} replica show {KEY}",
        f"  {temporal} workflow show {workflow}",
        f"  {temporal} workflow query {workflow} --type status",
    ]
    if not decided:
        lines += [
            "Decide, with one of:",
            f"  {failback} commit {KEY}",
            f"  {failback} undo {KEY}",
            f"  {temporal} workflow signal {workflow} --name commit",
        ]
    lines += [
        f"Temporal UI:    {site.ui}",
        f"practice site:  {site.manifest['control_url']}/state",
        f"stop it:        .venv/bin/python -m demo stop {shlex.quote(str(site.folder))}",
    ]
    console.print("\n".join(lines), highlight=False, soft_wrap=True, markup=False)


if __name__ == "__main__":
    status = main(sys.argv[1:])
    sys.stdout.flush()
    sys.stderr.flush()
    # The Temporal core may abort the interpreter while it finalises; everything is closed by now.
    os._exit(status)
