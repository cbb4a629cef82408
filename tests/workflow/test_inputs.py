"""Input that nobody can read, on a real server: it is answered, and no workflow stands still."""

from __future__ import annotations

import pytest
from temporalio.api.common.v1 import Payload
from temporalio.client import (
    WorkflowUpdateFailedError,
)
from temporalio.common import RawValue
from temporalio.testing import WorkflowEnvironment

from failback.contracts.words import Outcome, Phase
from tests.workflow.stand_ins import begin, until, working


def raw(data: bytes, encoding: bytes = b"json/plain") -> RawValue:
    """A payload as only a foreign or faulty client sends it."""
    return RawValue(Payload(metadata={"encoding": encoding}, data=data))


UNREADABLE = {
    "surrogate": raw(b'{"replica": "\\ud800 x"}'),
    "nesting": raw(b'{"replica": "web01", "x": ' + b"[" * 300 + b"]" * 300 + b"}"),
    "digits": raw(b'{"replica": "web01", "approvals": ' + b"1" * 5000 + b"}"),
    "utf-8": raw(b'{"replica": "web\xff"}'),
    "empty": raw(b""),
    "encoding": raw(b"{}", b"x/y"),
    "no encoding's name": raw(b"{}", b"\xff"),
    "message": raw(b"{}", b"json/protobuf"),
}
unreadable = pytest.mark.parametrize("value", UNREADABLE.values(), ids=list(UNREADABLE))


@unreadable
async def test_a_signal_with_it_is_recorded_as_rejected(
    env: WorkflowEnvironment, value: RawValue
) -> None:
    async with working(env.client) as (_, queue):
        handle = await begin(env.client, queue)
        await until(handle, Phase.AWAITING_DECISION)
        await handle.signal("commit", value)
        await handle.signal("undo", args=[{}, value])

        status = await until(handle, Phase.AWAITING_DECISION)
        first, second = status.requests
        assert not first.accepted and first.message.startswith("The input of commit is not under")
        assert not second.accepted and second.message.startswith("The input of undo is not under")
        await handle.signal("commit")
        assert (await handle.result()).outcome is Outcome.COMMITTED


async def test_an_update_with_it_is_refused_and_leaves_no_trace(env: WorkflowEnvironment) -> None:
    async with working(env.client) as (_, queue):
        handle = await begin(env.client, queue)
        await until(handle, Phase.AWAITING_DECISION)
        for value in UNREADABLE.values():
            with pytest.raises(WorkflowUpdateFailedError) as caught:
                await handle.execute_update("commit", value)
            assert "is not understood" in str(caught.value.cause)

        status = await until(handle, Phase.AWAITING_DECISION)
        assert status.requests == ()
        await handle.signal("commit")
        assert (await handle.result()).outcome is Outcome.COMMITTED
