"""Starts the worker on the practice site: settings from the lab's manifest, then `failback-worker`.

The lab takes free ports and makes new certificates at every start, so the settings are written anew
at every start of the worker.
"""

from __future__ import annotations

import json
import os
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

MANIFEST = Path("/lab/site/manifest.json")
SEGMENT_BYTES = 4 << 20
"""Small, so that the lab's small disks have many segments to resume at."""
RESERVE_BYTES = 64 << 20


def settings_text(manifest: Mapping[str, Any], state_dir: Path) -> str:
    """The settings file for a lab, as TOML."""
    lines = [
        "# Written at every start of the worker: an edit does not last.",
        "[worker]",
        f"state_dir = {_quoted(state_dir)}",
        "[transfer]",
        f"segment_bytes = {SEGMENT_BYTES}",
        "# The practice datastores are as full as this machine's disk.",
        f"reserve_bytes = {RESERVE_BYTES}",
        "reserve_percent = 0.0",
    ]
    for name, site in manifest["sites"].items():
        lines += [
            f"[sites.{_quoted(name)}]",
            f"url = {_quoted(site['url'])}",
            f"username = {_quoted(manifest['username'])}",
            f"password_file = {_quoted(manifest['password_file'])}",
            f"tls = {{ ca_file = {_quoted(manifest['ca_file'])} }}",
            # The lab keeps every snapshot's file a full image of its disk.
            "chain_members_complete = true",
            f"[sites.{_quoted(name)}.datastores]",
        ]
        lines += [f"{_quoted(key)} = {_quoted(path)}" for key, path in site["datastores"].items()]
    return "\n".join(lines) + "\n"


def _quoted(value: object) -> str:
    # TOML's basic strings take every escape that JSON writes for text without surrogates.
    return json.dumps(str(value), ensure_ascii=True)


def main(arguments: list[str]) -> None:
    """Write the settings where FAILBACK_SETTINGS says, and become the worker."""
    target = Path(os.environ["FAILBACK_SETTINGS"])
    manifest = json.loads(MANIFEST.read_text(encoding="utf-8"))
    # Replaced whole: the health check and `failback` commands read it at any time.
    aside = target.with_name(f"{target.name}.new")
    aside.write_text(settings_text(manifest, target.parent), encoding="utf-8")
    aside.replace(target)
    os.execvp("failback-worker", ["failback-worker", *arguments])


if __name__ == "__main__":
    main(sys.argv[1:])
