from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from failback.disks.hosts import HostLimits
from tests.vddk.fake import FakeHost, build

MakeHost = Callable[..., FakeHost]


@pytest.fixture(scope="session")
def library(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The fake library, compiled once."""
    return build(tmp_path_factory.mktemp("library"))


@pytest.fixture
def make_host(tmp_path: Path, library: Path) -> MakeHost:
    def make(name: str = "host", limits: HostLimits | None = None) -> FakeHost:
        return FakeHost.make(tmp_path / name, library, limits=limits)

    return make


@pytest.fixture
def host(make_host: MakeHost) -> FakeHost:
    """One ESXi host behind a vCenter."""
    return make_host()
