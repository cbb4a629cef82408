"""Runs one command; every expected trouble becomes one sentence and an exit status."""

from __future__ import annotations

import os
import sys
from collections.abc import Sequence
from importlib import import_module

from failback.disks.command.arguments import parser
from failback.disks.command.interrupt import Interrupt
from failback.disks.command.show import Screen, screen
from failback.errors import DiskSizeMismatch, FailbackError, SettingsInvalid, Stopped

DONE, DIFFERS, REFUSED, FAILED, INTERRUPTED = 0, 1, 2, 3, 130


def main(argv: Sequence[str] | None = None) -> int:
    """Exit status as in --help."""
    args = parser().parse_args(argv)
    shown = screen(as_json=args.json, quiet=args.quiet)
    with Interrupt() as interrupt:
        try:
            # Only now: help and mistakes need no database.
            actions = import_module("failback.disks.command.actions")
            done: bool = getattr(actions, args.name)(args, shown, interrupt)
            sys.stdout.flush()
            return DONE if done else DIFFERS
        except Stopped as stopped:
            return _tell(shown, stopped, INTERRUPTED)
        except KeyboardInterrupt:
            return _tell(shown, Stopped("Interrupted.", "Run the same command again."), INTERRUPTED)
        except (SettingsInvalid, DiskSizeMismatch) as error:
            return _tell(shown, error, REFUSED)
        except FailbackError as error:
            return _tell(shown, error, FAILED)
        except BrokenPipeError:
            # Whoever read our output has gone; nothing can be said to them.
            os.dup2(os.open(os.devnull, os.O_WRONLY), 1)
            return FAILED
        finally:
            shown.end()


def _tell(shown: Screen, error: FailbackError, status: int) -> int:
    shown.end()
    offset = error.evidence.get("offset")
    shown.note(f"failback: {error}")
    shown.give("error", type=error.type, message=error.what, remedy=error.remedy, offset=offset)
    sys.stdout.flush()
    return status
