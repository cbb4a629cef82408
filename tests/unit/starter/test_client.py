"""FailbackClient against a real server and a stand-in workflow."""

from __future__ import annotations

import asyncio
from datetime import timedelta
from pathlib import Path

import pytest
from temporalio.testing import WorkflowEnvironment

from failback.contracts.requests import Request
from failback.contracts.start import StartRequest
from failback.contracts.status import Status
from failback.contracts.words import Outcome, Phase
from failback.errors import SettingsInvalid
from starter import errors
from starter.client import FailbackClient
from starter.plugin import connect, connect_config, ensure_search_attributes
from starter.views import RunView
from tests.unit.starter import stand_in
from tests.unit.starter.stand_in import unique, working


def quick(env: WorkflowEnvironment, queue: str, answer_s: float = 20.0) -> FailbackClient:
    return FailbackClient(
        env.client,
        task_queue=queue,
        answer_timeout=timedelta(seconds=answer_s),
        poll_interval=timedelta(milliseconds=50),
    )


async def test_a_whole_life(env: WorkflowEnvironment) -> None:
    queue, key = unique("q"), unique("web")
    client = quick(env, queue)
    async with working(env.client, queue):
        answer = await client.start(StartRequest(replica=key, by="ann", reason="drill"))
        assert answer.accepted
        assert answer.workflow_id == f"failback/{key}"

        with pytest.raises(errors.RunOpen, match=f"replica {key} is open already"):
            await client.start(StartRequest(replica=key))
        with pytest.raises(errors.RunOpen):
            await client.start(StartRequest(replica=key), wait=False)

        retried = await client.retry(key)
        assert (retried.accepted, retried.message) == (False, "retry is not possible here")
        assert (await client.pause(key, Request(by="bob"))).by == "bob"
        assert (await client.resume(key)).accepted

        ended = asyncio.create_task(client.wait(key))
        first = await client.commit(key, Request(request_id="one", by="ann"))
        assert first.accepted
        assert (await ended).outcome is Outcome.COMMITTED
        assert await client.commit(key, Request(request_id="one")) == first

    # Closed, and nobody polls any more: the result still answers.
    view = await client.status(key)
    assert (view.open, view.status.outcome) == (False, Outcome.COMMITTED)
    late = await client.undo(key)
    assert not late.accepted
    assert late.message == "undo is not possible: the run has ended (COMMITTED)."
    assert (await client.start(StartRequest(replica=key), wait=False)).accepted


async def test_live_numbers_and_what_is_not_understood(env: WorkflowEnvironment) -> None:
    queue, key = unique("q"), unique("web")
    client = quick(env, queue)
    async with working(env.client, queue):
        await client.start(StartRequest(replica=key))
        view = await until(client, key, lambda v: all(item.heartbeat_at for item in v.live))
        assert view.progress == {"scsi0:0": stand_in.PROGRESS}
        by_name = {item.activity: item for item in view.live}
        assert by_name["watch_decision"].progress is None
        assert by_name["watch_decision"].state == "running"
        await client.undo(key)
        assert (await client.wait(key)).outcome is Outcome.UNDONE


async def until(client: FailbackClient, key: str, condition: object) -> RunView:
    assert callable(condition)
    async with asyncio.timeout(20):
        while True:
            view = await client.status(key)
            if view.live and condition(view):
                return view


async def test_refusal_carries_the_findings(env: WorkflowEnvironment) -> None:
    queue, key = unique("q"), unique("web")
    client = quick(env, queue)
    async with working(env.client, queue):
        answer = await client.start(StartRequest(replica=key, reason=stand_in.REFUSED))
    assert not answer.accepted
    assert answer.findings == (stand_in.FINDING,)


async def test_preflight_that_needs_an_operator(env: WorkflowEnvironment) -> None:
    queue, key = unique("q"), unique("web")
    client = quick(env, queue)
    async with working(env.client, queue):
        with pytest.raises(errors.OperatorNeeded) as caught:
            await client.start(StartRequest(replica=key, reason=stand_in.NEEDS_OPERATOR))
        await client.undo(key)
    assert "LoginRefused" in str(caught.value)
    assert f"`failback retry {key}` or `failback undo {key}`" in str(caught.value)


async def test_nobody_polls(env: WorkflowEnvironment) -> None:
    queue, key = unique("q"), unique("web")
    client = quick(env, queue, answer_s=1.5)
    text = f"No worker polls task queue {queue}: start `failback-worker`"
    with pytest.raises(errors.WorkerAbsent, match=f"The run is started and waits. {text}"):
        await client.start(StartRequest(replica=key))
    with pytest.raises(errors.WorkerAbsent, match=text):
        await client.status(key)
    with pytest.raises(errors.WorkerAbsent, match=text):
        await client.commit(key)


async def test_terminated(env: WorkflowEnvironment) -> None:
    queue, key = unique("q"), unique("web")
    client = quick(env, queue, answer_s=1.0)
    await client.start(StartRequest(replica=key), wait=False)
    await env.client.get_workflow_handle(f"failback/{key}").terminate("by hand")
    view = await client.status(key)
    assert (view.execution, view.status.replica, view.open) == ("TERMINATED", key, False)
    with pytest.raises(errors.RunEnded, match=r"ended as TERMINATED.*claims remain"):
        await client.wait(key)


async def test_unknown_and_impossible_keys(env: WorkflowEnvironment) -> None:
    client, key = quick(env, unique("q")), unique("nobody")
    calls = (client.status, client.wait, client.commit, client.undo)
    for call in calls:
        with pytest.raises(errors.RunUnknown, match=f"no run of VM replica {key}"):
            await call(key)
        with pytest.raises(errors.KeyInvalid, match="'Web 01' is not a replica key"):
            await call("Web 01")


async def test_list(env: WorkflowEnvironment) -> None:
    queue, key = unique("q"), unique("web")
    client = quick(env, queue)
    await client.start(StartRequest(replica=key), wait=False)
    async with asyncio.timeout(20):  # visibility is written a moment later
        runs = await client.list()
        while key not in {run.replica for run in runs}:
            runs = await client.list()
    assert runs[0].started_at == max(run.started_at for run in runs if run.started_at)


class Interrupted(FailbackClient):
    """The server is away for the first three looks at the result."""

    looks = 0

    async def _result(self, key: str, run_id: str) -> Status:
        self.looks += 1
        if self.looks <= 3:
            raise errors.TemporalUnreachable("away")
        return Status(replica=key, phase=Phase.CLOSED, outcome=Outcome.COMMITTED)


async def test_wait_outlives_a_restart_of_the_server(env: WorkflowEnvironment) -> None:
    key = unique("web")
    client = Interrupted(
        env.client, task_queue=unique("q"), poll_interval=timedelta(milliseconds=1)
    )
    await client.start(StartRequest(replica=key), wait=False)
    assert (await client.wait(key)).outcome is Outcome.COMMITTED
    assert client.looks == 4


async def test_search_attributes_are_registered_once(env: WorkflowEnvironment) -> None:
    assert await ensure_search_attributes(env.client) == ()


async def test_no_server() -> None:
    with pytest.raises(errors.TemporalUnreachable, match=r"server at 127.0.0.1:1 does not answer"):
        await connect({"TEMPORAL_ADDRESS": "127.0.0.1:1"})


def test_configuration(tmp_path: Path) -> None:
    nothing = {"TEMPORAL_CONFIG_FILE": str(tmp_path / "absent.toml")}
    assert connect_config(nothing)["target_host"] == "localhost:7233"
    named = connect_config({**nothing, "TEMPORAL_ADDRESS": "t:1", "TEMPORAL_NAMESPACE": "n"})
    assert (named["target_host"], named["namespace"]) == ("t:1", "n")
    broken = tmp_path / "broken.toml"
    broken.write_text("profile = [")
    with pytest.raises(SettingsInvalid, match="configuration cannot be read"):
        connect_config({"TEMPORAL_CONFIG_FILE": str(broken)})
