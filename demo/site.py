"""The practice installation: Temporal server, practice site, settings, workers, commands."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import urllib.request
from dataclasses import dataclass, field
from http.client import HTTPException
from pathlib import Path
from typing import Any

from demo.processes import ROOT, DemoFailed, Processes, free_port, until
from tools import paths

KEY = "web01"
REPLICA = "web01-replica"
HEARTBEAT_TIMEOUT_S = 3
ATTRIBUTES = ("FailbackPhase", "FailbackReplica", "FailbackDestination")


@dataclass
class Site:
    """Everything that runs during a demo, below one private folder."""

    processes: Processes
    bandwidth_bytes_per_s: int
    port: int = field(default_factory=free_port)
    ui_port: int = field(default_factory=free_port)
    manifest: dict[str, Any] = field(default_factory=dict)
    workers: int = 0

    @property
    def folder(self) -> Path:
        return self.processes.folder

    @property
    def settings(self) -> Path:
        return self.folder / "failback.toml"

    @property
    def ui(self) -> str:
        """Page of the run in the Temporal UI."""
        return f"http://127.0.0.1:{self.ui_port}/namespaces/default/workflows/failback%2F{KEY}"

    def environment(self) -> dict[str, str]:
        """Environment of commands and workers: this one's, pointed at the demo's server."""
        kept = {k: v for k, v in os.environ.items() if not k.startswith(("TEMPORAL_", "FAILBACK_"))}
        return kept | {
            "TEMPORAL_ADDRESS": f"127.0.0.1:{self.port}",
            "FAILBACK_SETTINGS": str(self.settings),
            "PYTHONUNBUFFERED": "1",
        }

    def start(self) -> None:
        """Temporal server with its UI, and the practice site, side by side."""
        attributes = [part for n in ATTRIBUTES for part in ("--search-attribute", f"{n}=Keyword")]
        self.processes.start(
            "temporal",
            [
                *(str(paths.temporal()), "server", "start-dev", "--ip", "127.0.0.1"),
                *("--port", str(self.port), "--ui-port", str(self.ui_port)),
                *("--db-filename", str(self.folder / "temporal.db"), "--log-level", "error"),
                *("--dynamic-config-value", 'history.timerProcessorMaxTimeShift="10ms"'),
                *attributes,
            ],
            self.environment(),
        )
        manifest = self.folder / "manifest.json"
        self.processes.start(
            "practice-site",
            [
                *(str(paths.lab()), "--root", str(self.folder / "site"), "--world", "demo"),
                *("--manifest", str(manifest), "--keep-images"),
            ],
            self.environment(),
        )
        self.processes.says("practice-site", "ready")
        self.manifest = json.loads(manifest.read_text())
        self.settings.write_text(self._settings())
        self.processes.says("temporal", "Temporal Server")

    def _settings(self) -> str:
        lines = [
            "[worker]",
            f"state_dir = {json.dumps(str(self.folder / 'state'))}",
            "# How long a dead worker goes unnoticed; 30 s is the default.",
            f"heartbeat_timeout_s = {HEARTBEAT_TIMEOUT_S}",
            "[transfer]",
            "# Small, so that small disks have many segments; 64 MiB is the default.",
            "segment_bytes = 4194304",
            "flush_interval_s = 0.5",
            "# The practice datastores are as full as this machine's disk.",
            "reserve_bytes = 67108864",
            "reserve_percent = 0.0",
            "# Slowed down, so that there is something to watch.",
            f"bandwidth_bytes_per_s = {self.bandwidth_bytes_per_s}",
        ]
        for name, site in self.manifest["sites"].items():
            lines += [
                f"[sites.{name}]",
                f"url = {json.dumps(site['url'])}",
                f"username = {json.dumps(self.manifest['username'])}",
                f"password_file = {json.dumps(self.manifest['password_file'])}",
                f"tls = {{ ca_file = {json.dumps(self.manifest['ca_file'])} }}",
                "# Each member of a snapshot chain is a complete image here; on vCenter not.",
                "chain_members_complete = true",
                f"[sites.{name}.datastores]",
                *(f"{json.dumps(k)} = {json.dumps(v)}" for k, v in site["datastores"].items()),
            ]
        return "\n".join(lines) + "\n"

    def start_worker(self) -> str:
        """Start one more worker process and wait until it polls; returns its name."""
        self.workers += 1
        name = f"worker-{self.workers}"
        self.processes.start(name, [sys.executable, str(ROOT / "worker.py")], self.environment())
        self.processes.says(name, "worker ready")
        return name

    def command(self, *arguments: str) -> str:
        """Run the `failback` command; returns what it said. DemoFailed when it refuses."""
        done = subprocess.run(
            [sys.executable, "-m", "starter.cli", *arguments],
            cwd=ROOT,
            env=self.environment(),
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            check=False,
        )
        if done.returncode != 0:
            said = (done.stderr or done.stdout).strip()
            raise DemoFailed(f"`failback {' '.join(arguments)}` said: {said}")
        return done.stdout.strip()

    def ask(self, path: str, body: dict[str, Any] | None = None) -> Any:
        """Ask the practice site's control endpoint."""
        request = urllib.request.Request(
            self.manifest["control_url"] + path,
            data=None if body is None else json.dumps(body).encode(),
            headers={"Content-Type": "application/json"},
        )
        try:
            with urllib.request.urlopen(request, timeout=30) as answer:
                return json.load(answer)
        except (OSError, HTTPException) as error:
            raise DemoFailed(f"The practice site did not answer {path}: {error}.") from error

    def vm(self, site: str) -> dict[str, Any]:
        """State of the demo's VM on this site, as the site itself knows it."""
        name = KEY if site == "production" else REPLICA
        vm: dict[str, Any] = self.ask("/state")["sites"][site]["vms"][name]
        return vm

    def power_events(self, site: str) -> list[dict[str, Any]]:
        """Power events of the demo's VM on this site, with digest and image of every disk."""
        name = KEY if site == "production" else REPLICA
        events: list[dict[str, Any]] = self.ask(f"/power-events?site={site}&vm={name}")["events"]
        return events

    def wait_for_cleanup(self) -> None:
        """After a commit: wait until nothing of ours is left on the target."""
        until(
            "the clean-up of the target VM",
            lambda: (
                not self.vm("production")["snapshots"]
                and not self.vm("production")["custom_values"].get("failback.state")
            ),
        )
