"""`python -m demo`: fail a practice VM back and prove the result; `stop FOLDER` ends a kept one.

DEMO=undo takes the other branch; KEEP=1 leaves everything running; KEEP_AT=decision stops there.
Exit status: 0 all proofs hold, 1 one does not or something failed, 130 and 143 interrupted.
"""

from __future__ import annotations

import asyncio
import os
import shutil
import signal
import sys
import tempfile
from pathlib import Path
from types import FrameType

from rich.console import Console

from demo import story
from demo.processes import ROOT, DemoFailed, Processes, stop_recorded
from demo.site import KEY, Site
from failback.errors import FailbackError
from tools.host import Problem

BANDWIDTH = 10_000_000
"""Bytes read per second: pass 1 takes some seconds, so that there is a middle to be killed in."""


class Interrupted(BaseException):
    """Ctrl-C or SIGTERM; not an Exception, so that nothing on the way swallows it."""

    def __init__(self, number: int) -> None:
        super().__init__(number)
        self.number = number


def interrupt(number: int, _: FrameType | None) -> None:
    # Once: a second Ctrl-C must not disturb the clean-up.
    for each in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        signal.signal(each, signal.SIG_IGN)
    raise Interrupted(number)


def main(arguments: list[str]) -> int:
    """Run the demo, or stop a kept one."""
    console = Console(width=None if sys.stdout.isatty() else 140)
    if arguments[:1] == ["stop"] and len(arguments) == 2:
        folder = Path(arguments[1])
        ended = stop_recorded(folder)
        shutil.rmtree(folder)
        console.print(f"{ended} processes ended, {folder} removed.", soft_wrap=True)
        return 0
    branch, keep = os.environ.get("DEMO", "commit"), bool(os.environ.get("KEEP"))
    if arguments or branch not in ("commit", "undo"):
        console.print("Use: python -m demo [stop FOLDER], with DEMO=commit or DEMO=undo, KEEP=1.")
        return 2
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        signal.signal(number, interrupt)
    (ROOT / ".demo").mkdir(mode=0o700, exist_ok=True)
    folder = Path(tempfile.mkdtemp(prefix="run-", dir=ROOT / ".demo"))
    processes = Processes(folder, keep)
    bandwidth = int(os.environ.get("DEMO_BANDWIDTH", BANDWIDTH))
    stay = False
    try:
        decide = not (keep and os.environ.get("KEEP_AT") == "decision")
        site = Site(processes, bandwidth)
        _, proven = asyncio.run(story.tell(site, console, undo=branch == "undo", decide=decide))
        stay = keep and proven
        if not proven:
            console.print(f"[bold red]A proof does not hold.[/] Logs: {folder}", soft_wrap=True)
        if stay:
            look_around(console, site)
        status = 0 if proven else 1
    except (DemoFailed, FailbackError, Problem) as error:
        console.print(f"[bold red]The demo failed:[/] {error} Logs: {folder}", soft_wrap=True)
        status = 1
    except Interrupted as interrupted:
        console.print("Interrupted: everything is being stopped.")
        status = 128 + interrupted.number
    finally:
        if not stay:
            processes.stop()
    if not stay and status in (0, 130, 143):
        shutil.rmtree(folder)
    return status


def look_around(console: Console, site: Site) -> None:
    """Everything stays up: say how to look at it and how to end it."""
    lines = [
        "",
        "Everything is left running. In another terminal:",
        f"  export TEMPORAL_ADDRESS=127.0.0.1:{site.port}",
        f"  export FAILBACK_SETTINGS={site.settings}",
        f"  .venv/bin/failback status {KEY}",
        f"  .venv/bin/failback replica show {KEY}",
        f"  temporal workflow show --workflow-id failback/{KEY}",
        f"Temporal UI:    {site.ui}",
        f"practice site:  {site.manifest['control_url']}/state",
        f"stop it:        .venv/bin/python -m demo stop {site.folder}",
    ]
    console.print("\n".join(lines), highlight=False, soft_wrap=True, markup=False)


if __name__ == "__main__":
    status = main(sys.argv[1:])
    sys.stdout.flush()
    sys.stderr.flush()
    # The Temporal core may abort the interpreter while it finalises; everything is closed by now.
    os._exit(status)
