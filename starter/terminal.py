"""Rich on the streams of a shell, and the client that a command talks through."""

from __future__ import annotations

from rich.console import Console, RenderableType
from temporalio.runtime import LoggingConfig, Runtime, TelemetryConfig, TelemetryFilter

from starter.client import FailbackClient
from starter.plugin import connect
from starter.queue import task_queue
from starter.shell import Shell


def console(shell: Shell) -> Console:
    """A console on standard output; texts come from elsewhere, so nothing in them is markup."""
    return Console(file=shell.stdout, highlight=False, markup=False, emoji=False)


def unicode_safe(target: Console) -> bool:
    """Whether ticks and arrows can be printed."""
    return not target.options.ascii_only


def show(shell: Shell, renderable: RenderableType) -> None:
    """Print for people."""
    if not shell.json:
        console(shell).print(renderable)


async def open_client(shell: Shell, settings: str | None) -> FailbackClient:
    """The client that the shell was given, or one for the server that the environment names."""
    if shell.open_client is not None:
        return await shell.open_client(shell, settings)
    queue = task_queue(settings, shell.environ)
    client = await connect(shell.environ, runtime=quiet())
    return FailbackClient(client, task_queue=queue)


def quiet() -> Runtime:
    """The core logs every retry of a call on standard error, in the middle of what people read; a
    command says itself when the server does not answer."""
    errors = TelemetryFilter(core_level="ERROR", other_level="ERROR")
    return Runtime(telemetry=TelemetryConfig(logging=LoggingConfig(filter=errors)))
