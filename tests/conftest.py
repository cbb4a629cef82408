"""One Temporal server for the whole session, real and with time skipping at hand."""

from __future__ import annotations

from collections.abc import AsyncIterator
from datetime import timedelta
from pathlib import Path

import pytest
import pytest_asyncio
from temporalio.testing import TimeSkippingConfig, WorkflowEnvironment

from starter.plugin import SEARCH_ATTRIBUTES, failback_plugin
from tools import paths

FAST_TIMERS = ["--dynamic-config-value", 'history.timerProcessorMaxTimeShift="10ms"']
"""The server's timers are a second coarse by default; retries in tests need not be."""

SKIPPING = ["--dynamic-config-value", "frontend.WorkflowTimeSkippingEnabled=true"]


TOGETHER = ("faults",)
"""Folders whose tests share what they saw: one process runs all of them."""


@pytest.hookimpl(tryfirst=True)
def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Processes share the tests one by one, but for these folders. First: what shares them out
    looks at the marks in a hook of the same name."""
    for item in items:
        folder = item.path.relative_to(Path(__file__).parent).parts[0]
        if folder in TOGETHER:
            item.add_marker(pytest.mark.xdist_group(folder))


@pytest_asyncio.fixture(scope="session", loop_scope="session")
async def env() -> AsyncIterator[WorkflowEnvironment]:
    """A dev server on a free port; timers skip only when a test fast-forwards."""
    async with await WorkflowEnvironment.start_time_skipping_v2(
        dev_server_existing_path=str(paths.temporal()),
        dev_server_startup_timeout=timedelta(seconds=60),
        dev_server_extra_args=[*SKIPPING, *FAST_TIMERS],
        search_attributes=SEARCH_ATTRIBUTES,
        ts_config=TimeSkippingConfig(enabled=False),
        plugins=[failback_plugin()],
    ) as environment:
        yield environment


@pytest.fixture(scope="session")
def temporal_path() -> str:
    """Path of the Temporal binary: server and command line."""
    return str(paths.temporal())
