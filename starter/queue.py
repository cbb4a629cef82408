"""Which task queue the workers of this installation poll."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

from failback import settings_file
from failback.errors import SettingsInvalid
from starter.client import TASK_QUEUE

VARIABLE = "FAILBACK_TEMPORAL__TASK_QUEUE"


def task_queue(file: str | None, environ: Mapping[str, str]) -> str:
    """`temporal.task_queue` of the settings; `failback` where there are none.

    Only this key is read: who talks to a run needs no access to sites, passwords or the state
    directory. SettingsInvalid where a file is named and cannot be read.
    """
    if named := environ.get(VARIABLE):
        return named
    try:
        path = settings_file.find(Path(file) if file else None, environ)
    except SettingsInvalid:  # no file anywhere, and none is needed
        return TASK_QUEUE
    table = settings_file.read(path).values.get("temporal")
    found = table.get("task_queue") if isinstance(table, dict) else None
    return found if isinstance(found, str) and found else TASK_QUEUE
