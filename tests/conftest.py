"""One Temporal server for the whole session, real and with time skipping at hand."""

from __future__ import annotations

from collections.abc import AsyncIterator
from datetime import timedelta
from typing import Any

import pytest
import pytest_asyncio
from temporalio.testing import TimeSkippingConfig, WorkflowEnvironment
from xdist.scheduler import LoadScopeScheduling  # type: ignore[import-untyped]

from starter.plugin import SEARCH_ATTRIBUTES, failback_plugin
from tests.helpers.matrix import Table
from tools import paths

FAST_TIMERS = ["--dynamic-config-value", 'history.timerProcessorMaxTimeShift="10ms"']
"""The server's timers are a second coarse by default; retries in tests need not be."""

SKIPPING = ["--dynamic-config-value", "frontend.WorkflowTimeSkippingEnabled=true"]


TOGETHER = "tests/faults/"
"""Tests that share what they saw: their document is compared with it."""


class Sharing(LoadScopeScheduling):  # type: ignore[misc]
    """Processes take tests one by one, but the whole of TOGETHER is one piece."""

    def _split_scope(self, nodeid: str) -> str:
        return TOGETHER if nodeid.startswith(TOGETHER) else nodeid


def pytest_xdist_make_scheduler(config: pytest.Config, log: Any) -> Sharing:
    """For every run with several processes."""
    return Sharing(config, log)


def pytest_configure(config: pytest.Config) -> None:
    """Here and not beside its tests: only this file is read by the process that reports."""
    config.pluginmanager.register(Table(), "crash-matrix")


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
