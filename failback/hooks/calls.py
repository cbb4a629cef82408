"""The hooks that a worker's settings name, and how they are called.

A request names a hook and never says what it does: whoever may start a failback can make the
worker do what its administrator has written down, and nothing else.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass, field
from datetime import timedelta
from pathlib import Path

from failback.errors import SettingsInvalid
from failback.hooks.command import Called, run_command
from failback.hooks.output import headers_in, secrets_in
from failback.hooks.web import Request, call_url


@dataclass(frozen=True)
class HookCommand:
    """A program of the worker's machine, with its arguments."""

    argv: tuple[str, ...]


@dataclass(frozen=True)
class HookUrl:
    """An HTTP call."""

    url: str
    method: str = "POST"
    headers_file: Path | None = None
    ca_file: Path | None = None
    insecure: bool = False


@dataclass(frozen=True)
class CalledVm:
    """A VM as a hook gets to know it."""

    name: str
    site: str
    moref: str


@dataclass(frozen=True)
class Occasion:
    """On whose behalf, and when, a hook is called."""

    run: str
    replica: str
    hook: str
    when: str
    """`before`, `after`; `probe` while the decision is awaited."""
    step: str
    key: str
    """The same for every attempt of one call, so that its receiver can tell a repeat."""
    replica_vm: CalledVm | None = None
    target_vm: CalledVm | None = None

    def variables(self) -> dict[str, str]:
        """For the environment of a command."""
        said = {
            "FAILBACK_RUN": self.run,
            "FAILBACK_REPLICA": self.replica,
            "FAILBACK_HOOK": self.hook,
            "FAILBACK_WHEN": self.when,
            "FAILBACK_STEP": self.step,
            "FAILBACK_IDEMPOTENCY_KEY": self.key,
        }
        for part, vm in (("REPLICA", self.replica_vm), ("TARGET", self.target_vm)):
            if vm is not None:
                said |= {
                    f"FAILBACK_{part}_VM": vm.name,
                    f"FAILBACK_{part}_SITE": vm.site,
                    f"FAILBACK_{part}_MOREF": vm.moref,
                }
        return {name: value.replace("\0", "") for name, value in said.items()}

    def document(self) -> bytes:
        """The same as JSON, for standard input or the body of a request."""
        said: dict[str, object] = {
            "version": 1,
            "run": self.run,
            "replica": self.replica,
            "hook": self.hook,
            "when": self.when,
            "step": self.step,
            "idempotency_key": self.key,
        }
        for part, vm in (("replica_vm", self.replica_vm), ("target_vm", self.target_vm)):
            said[part] = None if vm is None else vars(vm)
        return json.dumps(said).encode()


@dataclass(frozen=True)
class Calls:
    """All hooks of a worker."""

    hooks: Mapping[str, HookCommand | HookUrl] = field(default_factory=dict)
    secret_files: Collection[Path] = ()
    """What stands in these never appears in a hook's kept output."""

    def unknown(self, names: Collection[str]) -> tuple[str, ...]:
        """Those of the names that the settings do not have."""
        return tuple(name for name in dict.fromkeys(names) if name not in self.hooks)

    def call(self, occasion: Occasion, timeout: timedelta, beat: Callable[[], None]) -> Called:
        """Call the hook. Whatever goes wrong is a result; only what `beat` raises is raised."""
        hook = self.hooks.get(occasion.hook)
        if hook is None:
            return Called(False, "", f"the worker's settings have no hook {occasion.hook}")
        timeout_s = timeout.total_seconds()
        if isinstance(hook, HookCommand):
            return run_command(
                hook.argv,
                occasion.variables(),
                occasion.document(),
                timeout_s=timeout_s,
                beat=beat,
                secrets=secrets_in(self.secret_files),
            )
        try:
            headers = headers_in(hook.headers_file) if hook.headers_file else {}
        except SettingsInvalid as error:
            return Called(False, "", str(error))
        files = [*self.secret_files, *([hook.headers_file] if hook.headers_file else [])]
        request = Request(
            hook.url,
            hook.method,
            {
                "Content-Type": "application/json",
                "User-Agent": "failback",
                "Idempotency-Key": occasion.key,
            }
            | headers,
            None if hook.method == "GET" else occasion.document(),
            hook.ca_file,
            hook.insecure,
        )
        return call_url(request, timeout_s=timeout_s, beat=beat, secrets=secrets_in(files))
