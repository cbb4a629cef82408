"""Input that nobody can read, on a real server: it is answered, and no workflow stands still."""

from __future__ import annotations

import uuid
from typing import Any

import pytest
from temporalio.api.common.v1 import Payload
from temporalio.client import (
    Client,
    WorkflowFailureError,
    WorkflowHandle,
    WorkflowUpdateFailedError,
)
from temporalio.common import RawValue
from temporalio.exceptions import ApplicationError
from temporalio.testing import WorkflowEnvironment

from failback.contracts.plan import Finding
from failback.contracts.preview import Preview
from failback.contracts.status import Status
from failback.contracts.words import Outcome, Phase
from tests.replay.record import MANUAL, cycles, hurried
from tests.workflow.stand_ins import Site, begin, until, working
from workflows.inputs import LARGEST


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
ANY = UNREADABLE["surrogate"]


async def started(client: Client, queue: str, name: str, *args: Any) -> WorkflowHandle[Any, Any]:
    return await client.start_workflow(
        name,
        args=args,
        id=f"{name}/{uuid.uuid4().hex[:8]}",
        task_queue=queue,
        result_type={"Failback": Status, "FailbackPreview": Preview}.get(name),
    )


async def refused(client: Client, site: Site, queue: str, *args: Any) -> Finding:
    """Why a run that is started with this is refused; nothing was done for it."""
    handle = await started(client, queue, "Failback", *args)
    status: Status = await handle.result()
    assert status.outcome is Outcome.REFUSED and status.phase is Phase.CLOSED
    (finding,) = status.findings
    assert finding.code == "INPUT_INVALID" and finding.remedy
    assert site.issued == []
    return finding


@unreadable
async def test_a_run_that_is_started_with_it_is_refused(
    env: WorkflowEnvironment, value: RawValue
) -> None:
    async with working(env.client) as (site, queue):
        finding = await refused(env.client, site, queue, value)

    assert finding.message.startswith("The start request is not understood: input: ")


@pytest.mark.parametrize(
    ("more", "why"),
    [
        (({},), "argument 2, facts: Field required"),
        (("garbage",), "argument 2, input: Input should be"),
        ((ANY,), "argument 2, input: Invalid JSON"),
        ((None, None), "there are 3 arguments, and 2 may be"),
        ((None, ANY), "there are 3 arguments, and 2 may be"),
        ((1, 2, 3), "there are 4 arguments, and 2 may be"),
    ],
)
async def test_a_run_that_is_started_with_more_is_refused(
    env: WorkflowEnvironment, more: tuple[Any, ...], why: str
) -> None:
    async with working(env.client) as (site, queue):
        assert why in (await refused(env.client, site, queue, {"replica": "web01"}, *more)).message


async def test_a_run_that_is_started_without_anything_is_refused(env: WorkflowEnvironment) -> None:
    async with working(env.client) as (site, queue):
        await refused(env.client, site, queue)


async def test_a_start_request_that_is_too_large_is_refused(env: WorkflowEnvironment) -> None:
    large = {"replica": "web01", "unknown": "x" * LARGEST}
    async with working(env.client) as (site, queue):
        finding = await refused(env.client, site, queue, large)
        preview = await (await started(env.client, queue, "FailbackPreview", large)).result()
        handle = await started(env.client, queue, "Failback", {**large, "unknown": "x" * 200_000})
        await until(handle, Phase.AWAITING_DECISION)
        await handle.signal("undo")
        assert (await handle.result()).outcome is Outcome.UNDONE

    assert f"bytes, and {LARGEST} are the most" in finding.message
    assert preview.findings == (finding,)


async def test_another_execution_begins_with_the_request_as_it_was_understood(
    env: WorkflowEnvironment,
) -> None:
    request = {"replica": "web01", **MANUAL, "unknown": "x" * 10_000}
    async with working(env.client, "", preflight=hurried) as (_, queue):
        handle = await begin(env.client, queue, request)
        await cycles(handle, 6)
        await until(handle, Phase.READY_TO_SWITCH)
        await handle.signal("undo")
        status = await handle.result()
        latest = env.client.get_workflow_handle(handle.id)
        (first, *_) = (await latest.fetch_history()).events

    begun = first.workflow_execution_started_event_attributes
    assert begun.continued_execution_run_id and status.outcome is Outcome.UNDONE
    given, _ = begun.input.payloads
    assert b'"resync_interval":"PT1S"' in given.data and len(given.data) < 5000


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


@pytest.mark.parametrize("given", [(ANY,), ({"replica": "web01"}, 2), ({}, ANY), ()])
async def test_a_preview_of_it_has_a_finding(
    env: WorkflowEnvironment, given: tuple[Any, ...]
) -> None:
    async with working(env.client) as (site, queue):
        found: Preview = await (
            await started(env.client, queue, "FailbackPreview", *given)
        ).result()

    assert not found.accepted and site.issued == []
    assert [finding.code for finding in found.findings] == ["INPUT_INVALID"]


@pytest.mark.parametrize("given", [(ANY,), ({},), ({}, 2), ("x", ANY), ()])
@pytest.mark.parametrize("name", ["FailbackCleanup", "FailbackReconcile"])
async def test_a_workflow_without_findings_fails_with_a_sentence(
    env: WorkflowEnvironment, name: str, given: tuple[Any, ...]
) -> None:
    async with working(env.client) as (site, queue):
        handle = await started(env.client, queue, name, *given)
        with pytest.raises(WorkflowFailureError) as caught:
            await handle.result()

    cause = caught.value.cause
    assert isinstance(cause, ApplicationError) and cause.type == "InputInvalid"
    assert cause.message.startswith("The input is not understood (")
    assert site.issued == []
