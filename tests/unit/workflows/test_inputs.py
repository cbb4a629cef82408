"""What a run may begin with, where only another execution of it gives that."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import pytest
from temporalio import workflow

from failback.contracts.unreadable import Unreadable
from workflows import failback


@pytest.mark.parametrize("state", [{}, "garbage", Unreadable("Invalid JSON: EOF")])
def test_a_run_that_goes_on_waits_for_a_worker_that_understands_its_state(
    state: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It must not be refused: it is in the midst of its work, and its claims are held."""
    info = SimpleNamespace(continued_run_id="the execution before")
    monkeypatch.setattr(workflow, "info", lambda: info)
    given = ({"replica": "web01"}, state)

    with pytest.raises(RuntimeError, match="does not understand the run that goes on here"):
        failback._begun_with(given)

    info.continued_run_id = None
    refused = failback._begun_with(given)[2]
    assert refused is not None and refused.code == "INPUT_INVALID"
