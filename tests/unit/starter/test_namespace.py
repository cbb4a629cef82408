"""`failback search-attributes` at a namespace of a real server, seen through Temporal's command."""

from __future__ import annotations

import asyncio
import json
import subprocess
import sys
from typing import Any

from google.protobuf.duration_pb2 import Duration
from temporalio.api.workflowservice.v1 import RegisterNamespaceRequest
from temporalio.testing import WorkflowEnvironment

from starter.plugin import SEARCH_ATTRIBUTES
from tests.helpers.stack import environment
from tests.unit.starter.stand_in import unique

NAMES = [key.name for key in SEARCH_ATTRIBUTES]


def ran(*words: str, **more: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        words, env=environment(**more), capture_output=True, text=True, check=False, timeout=60
    )


async def bare_namespace(env: WorkflowEnvironment) -> dict[str, str]:
    """A namespace without search attributes of ours, as the environment names it."""
    namespace = unique("ns")
    await env.client.workflow_service.register_namespace(
        RegisterNamespaceRequest(
            namespace=namespace, workflow_execution_retention_period=Duration(seconds=86400)
        )
    )
    return {
        "TEMPORAL_ADDRESS": env.client.service_client.config.target_host,
        "TEMPORAL_NAMESPACE": namespace,
    }


async def test_what_is_missing_is_registered_once(
    env: WorkflowEnvironment, temporal_path: str
) -> None:
    at = await bare_namespace(env)
    command = (sys.executable, "-m", "starter.cli", "search-attributes", "--json")

    async def registered() -> dict[str, Any]:
        # The server's front ends learn of a new namespace within seconds.
        async with asyncio.timeout(60):
            while (done := await asyncio.to_thread(ran, *command, **at)).returncode != 0:
                assert "not found" in done.stderr, done.stderr
                await asyncio.sleep(0.2)
        answer: dict[str, Any] = json.loads(done.stdout)
        return answer

    assert await registered() == {
        "namespace": at["TEMPORAL_NAMESPACE"],
        "search_attributes": NAMES,
        "registered": NAMES,
    }
    assert (await registered())["registered"] == []
    listed = await asyncio.to_thread(
        ran, temporal_path, *("operator", "search-attribute", "list", "--output", "json"), **at
    )
    known = json.loads(listed.stdout)["customAttributes"]
    keyword = "INDEXED_VALUE_TYPE_KEYWORD"
    assert {name: known.get(name) for name in NAMES} == dict.fromkeys(NAMES, keyword)


async def test_a_name_of_another_type_is_said(env: WorkflowEnvironment, temporal_path: str) -> None:
    at = await bare_namespace(env)
    create = ("operator", "search-attribute", "create", "--name", NAMES[0], "--type", "Int")
    async with asyncio.timeout(60):
        while (await asyncio.to_thread(ran, temporal_path, *create, **at)).returncode != 0:
            await asyncio.sleep(0.2)

    done = await asyncio.to_thread(
        ran, sys.executable, "-m", "starter.cli", "search-attributes", **at
    )

    assert done.returncode == 2, done
    assert f"{NAMES[0]} exists with a type other than Keyword" in done.stderr
    assert "Remove it from the namespace" in done.stderr
