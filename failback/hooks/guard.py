"""The small process between a worker and one command of its settings.

    python -I -S guard.py CONTROL COMMAND ARGUMENT...

CONTROL is the reading end of a pipe whose other end the worker holds. When that end is closed,
because the time is over or because the worker is dead, the whole process group of the command is
ended: first asked to, then killed. So a worker that dies leaves no command behind that would run
beside the next attempt's. Ends with the command's exit status, or 128 and the signal's number.
"""

from __future__ import annotations

import os
import select
import signal
import sys

GRACE_MS = 2000
"""Between SIGTERM and SIGKILL."""

NOT_STARTED = 127


def main() -> int:
    """Run the command to its end, or until the worker is gone."""
    control, command = int(sys.argv[1]), sys.argv[2:]
    child = os.fork()
    if child == 0:
        _become(control, command)
    for inherited in (0, 1, 2):
        # The command alone holds the pipes: the worker sees their end when it is gone.
        os.close(inherited)
    ended = os.pidfd_open(child)
    waiting = select.poll()
    waiting.register(ended, select.POLLIN)
    waiting.register(control, select.POLLIN | select.POLLHUP)
    if ended not in {fd for fd, _ in waiting.poll()}:
        _end_group(child, ended)
    status = os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
    return status if status >= 0 else 128 - status


def _become(control: int, command: list[str]) -> None:
    """In the child: a process group of its own, then the command."""
    try:
        os.setsid()
        os.close(control)
        # Python ignores it, and what it starts would inherit that.
        signal.signal(signal.SIGPIPE, signal.SIG_DFL)
        os.execv(command[0], command)
    except OSError as error:
        os.write(2, f"{command[0]} cannot be started: {error.strerror}\n".encode())
    finally:
        os._exit(NOT_STARTED)


def _end_group(leader: int, ended: int) -> None:
    """End everything in the group. Its leader is not waited for yet, so its number is not taken."""
    _signal(leader, signal.SIGTERM)
    grace = select.poll()
    grace.register(ended, select.POLLIN)
    grace.poll(GRACE_MS)
    _signal(leader, signal.SIGKILL)


def _signal(group: int, number: int) -> None:
    try:
        os.killpg(group, number)
    except (ProcessLookupError, PermissionError):
        # Gone already, or it has not become a group yet and will see the end of its parent.
        try:
            os.kill(group, number)
        except ProcessLookupError:
            return


if __name__ == "__main__":
    # At once: nothing is left that the interpreter would have to tidy up.
    os._exit(main())
