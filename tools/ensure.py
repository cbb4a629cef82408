"""Prepares what the project needs and says where it is: `python3 tools/ensure.py --help`.

Kept readable to old Pythons down to the version check: they get a sentence and no traceback.
"""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

TARGETS = ("venv", "nbdkit", "temporal", "lab", "referee", "vddk-plugin")
OPTIONAL = frozenset({"vddk-plugin"})
"""Only tests need them: `all` says loudly that they are missing, and goes on."""

WANTED = (3, 11)


def prepare(target: str) -> Path:
    """Prepare one thing and return its path."""
    # Imported late: the modules use syntax and libraries that only a new enough Python has.
    from tools import (  # noqa: PLC0415
        environment,
        system,
        temporal_binary,
        vddk_plugin,
    )
    from tools.go_program import LAB, REFEREE  # noqa: PLC0415
    from tools.host import Host  # noqa: PLC0415

    host = Host()
    if target == "venv":
        return environment.ensure(host)
    if target == "nbdkit":
        return system.ensure(host)["nbdkit"]
    if target == "temporal":
        return temporal_binary.ensure(host)
    if target == "vddk-plugin":
        return vddk_plugin.ensure(host)
    if target == "referee":
        return REFEREE.ensure(host)
    return LAB.ensure(host)


def main(arguments: list[str]) -> int:
    """Prepare what was asked for; 0 when all of it is there."""
    parser = argparse.ArgumentParser(
        prog="tools/ensure.py",
        description="Prepare the virtual environment, the system's programs (nbdkit and the ext4"
        " tools), the Temporal server, the practice site and, for tests, an older"
        " vCenter simulator and nbdkit's VDDK plugin.",
    )
    parser.add_argument("target", nargs="+", choices=[*TARGETS, "all"])
    parser.add_argument(
        "--print", action="store_true", dest="show", help="print the resolved paths, one a line"
    )
    chosen = parser.parse_args(arguments)
    if sys.version_info < WANTED:
        found = "{}.{}".format(*sys.version_info[:2])
        print(f"failback: Python {found} is too old: run this with 3.11 or newer.", file=sys.stderr)
        return 1
    if not sys.platform.startswith("linux"):
        print(f"failback: this needs Linux, and {sys.platform} is not.", file=sys.stderr)
        return 1

    from tools.host import Problem  # noqa: PLC0415

    targets = TARGETS if "all" in chosen.target else tuple(dict.fromkeys(chosen.target))
    try:
        for target in targets:
            try:
                path = prepare(target)
            except Problem as problem:
                if "all" not in chosen.target or target not in OPTIONAL:
                    raise
                print(f"failback: {problem} Tests that need it will say so.", file=sys.stderr)
                continue
            if chosen.show:
                print(path, flush=True)
    except Problem as problem:
        print(f"failback: {problem}", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        print("failback: interrupted; what was begun is begun again next time.", file=sys.stderr)
        return 130
    return 0


if __name__ == "__main__":
    # Run as a script, the first entry is this folder, whose names are not meant to be importable.
    sys.path[0] = str(Path(__file__).resolve().parent.parent)
    raise SystemExit(main(sys.argv[1:]))
