"""The `failback` command. Exit status: see `failback --help`."""

from __future__ import annotations

import contextlib
import os
import sys
import traceback
from collections.abc import Sequence
from importlib import import_module
from typing import NoReturn

from failback.errors import FailbackError
from starter.arguments import parser
from starter.errors import OperatorNeeded, RunEnded
from starter.shell import Shell

DONE, UNEXPECTED, REFUSED, STANDS = 0, 1, 2, 3
INTERRUPTED, PIPE_CLOSED = 130, 141


def run(argv: Sequence[str], shell: Shell) -> int:
    """Run one command and return its exit status; expected errors become one sentence."""
    grammar = parser()
    try:
        args = grammar.parse_args(argv)
    except SystemExit as stop:  # help, or a mistake that argparse has explained
        return stop.code if isinstance(stop.code, int) else REFUSED
    if args.version:
        args = grammar.parse_args(["version"])
    if not hasattr(args, "command"):
        grammar.print_help(shell.stderr)
        return REFUSED
    shell.json, shell.argv = args.json, tuple(argv)
    try:
        # Only the module of this command is loaded: `--help` needs no Temporal core, and only the
        # commands that administer the catalog load a database.
        module, _, function = str(args.command).partition(":")
        status: int = getattr(import_module(module), function)(args, shell)
        return status
    except (OperatorNeeded, RunEnded) as error:
        shell.fail(error)
        return STANDS
    except FailbackError as error:
        shell.fail(error)
        return REFUSED
    except KeyboardInterrupt:
        return INTERRUPTED
    except BrokenPipeError:
        return PIPE_CLOSED
    except Exception as error:  # the boundary of the process
        traceback.print_exc(file=shell.stderr)
        shell.note(f"failback: unexpected error: {type(error).__name__}: {error}")
        shell.give({"error": {"type": "Unexpected", "message": str(error), "remedy": ""}})
        return UNEXPECTED


def main() -> NoReturn:
    """Entry point of the `failback` command."""
    status = run(sys.argv[1:], Shell.of_process())
    for stream in (sys.stdout, sys.stderr):
        with contextlib.suppress(OSError, ValueError):
            stream.flush()
    # With the Temporal core loaded the interpreter sometimes dies while it finalises; all our work
    # is done and flushed here.
    os._exit(status)


if __name__ == "__main__":
    main()
