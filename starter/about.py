"""`failback version`."""

from __future__ import annotations

import argparse
from importlib.metadata import PackageNotFoundError
from importlib.metadata import version as installed

from starter.shell import Shell


def version(_args: argparse.Namespace, shell: Shell) -> int:
    """Print the installed version."""
    try:
        number = installed("failback")
    except PackageNotFoundError:  # a checkout that was never installed
        number = "unknown"
    shell.give({"version": number})
    shell.say(f"failback {number}")
    return 0
