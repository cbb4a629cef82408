"""One plugin shared by client, worker, replayer and tests, so that they cannot drift apart."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping

from temporalio.api.enums.v1 import IndexedValueType
from temporalio.api.operatorservice.v1 import (
    AddSearchAttributesRequest,
    ListSearchAttributesRequest,
)
from temporalio.client import Client
from temporalio.common import SearchAttributeKey
from temporalio.envconfig import ClientConfig, ClientConnectConfig
from temporalio.plugin import SimplePlugin
from temporalio.runtime import Runtime
from temporalio.service import RPCError, RPCStatusCode
from temporalio.worker import WorkflowRunner
from temporalio.worker.workflow_sandbox import SandboxedWorkflowRunner, SandboxRestrictions

from failback.errors import SettingsInvalid
from starter.converter import data_converter
from starter.errors import TemporalRefused, TemporalUnreachable

DEFAULT_ADDRESS = "localhost:7233"
CONNECT_TIMEOUT_S = 10.0

PHASE = SearchAttributeKey.for_keyword("FailbackPhase")
REPLICA = SearchAttributeKey.for_keyword("FailbackReplica")
DESTINATION = SearchAttributeKey.for_keyword("FailbackDestination")
PLAN = SearchAttributeKey.for_keyword("FailbackPlan")
SEARCH_ATTRIBUTES = (PHASE, REPLICA, DESTINATION, PLAN)

PASSTHROUGH = ("failback.contracts", "annotated_types", "pydantic", "pydantic_core")
"""Imported once and not anew for every run: frozen models without state. Whatever else a workflow
module imports stays in the sandbox, so that a slip there is noticed."""


def failback_plugin() -> SimplePlugin:
    """Data converter and workflow sandbox; give it to the client, workers inherit it from there.

    A Replayer has no client and needs it explicitly.
    """
    return SimplePlugin(
        "failback",
        data_converter=data_converter,
        workflow_runner=_sandboxed,
        interceptors=[],
    )


def _sandboxed(existing: WorkflowRunner | None) -> WorkflowRunner:
    """Add our modules to the restrictions in use; another kind of runner is left as it is."""
    if existing is None:
        existing = SandboxedWorkflowRunner(restrictions=SandboxRestrictions.default)
    if not isinstance(existing, SandboxedWorkflowRunner):
        return existing
    return SandboxedWorkflowRunner(
        restrictions=existing.restrictions.with_passthrough_modules(*PASSTHROUGH),
        runner_class=existing.runner_class,
    )


async def connect(environ: Mapping[str, str], *, runtime: Runtime | None = None) -> Client:
    """Connect as `TEMPORAL_*` variables and the Temporal configuration file say.

    These are the names that the `temporal` command reads too. Without an address: localhost:7233.

    Raises:
        SettingsInvalid: the Temporal configuration cannot be read.
        TemporalUnreachable: no server answers at the address.
        TemporalRefused: the server does not accept these credentials.
    """
    config = connect_config(environ)
    address = config["target_host"]
    try:
        async with asyncio.timeout(CONNECT_TIMEOUT_S):
            return await Client.connect(**config, plugins=[failback_plugin()], runtime=runtime)
    except (RuntimeError, OSError, TimeoutError) as error:
        raise TemporalUnreachable(
            f"The Temporal server at {address} does not answer.",
            "Start it, or set TEMPORAL_ADDRESS to where it is.",
            cause=str(error)[:500],
        ) from error
    except RPCError as error:
        raise TemporalRefused(
            f"The Temporal server at {address} does not accept the connection: {error.message}.",
            "Check TEMPORAL_NAMESPACE, TEMPORAL_API_KEY and the TEMPORAL_TLS variables.",
        ) from error


def connect_config(environ: Mapping[str, str]) -> ClientConnectConfig:
    """Keyword arguments for `Client.connect`; SettingsInvalid when they cannot be read."""
    try:
        config = ClientConfig.load_client_connect_config(override_env_vars=dict(environ))
    except (RuntimeError, ValueError, OSError) as error:
        raise SettingsInvalid(
            f"The Temporal client configuration cannot be read: {error}.",
            "Check TEMPORAL_CONFIG_FILE, TEMPORAL_PROFILE and the other TEMPORAL_ variables.",
        ) from error
    config.setdefault("target_host", DEFAULT_ADDRESS)
    return config


async def ensure_search_attributes(client: Client) -> tuple[str, ...]:
    """Register the search attributes that are missing; returns their names. Safe to repeat.

    Raises:
        TemporalRefused: we may not register them, or a name exists with another type. Without
            them every run would stop at its first change of phase.
    """
    names = [key.name for key in SEARCH_ATTRIBUTES]
    keyword = IndexedValueType.INDEXED_VALUE_TYPE_KEYWORD
    try:
        known = (
            await client.operator_service.list_search_attributes(
                ListSearchAttributesRequest(namespace=client.namespace)
            )
        ).custom_attributes
        wrong = sorted(name for name in names if known.get(name, keyword) != keyword)
        if wrong:
            raise TemporalRefused(
                f"Search attribute {', '.join(wrong)} exists with a type other than Keyword.",
                "Remove it from the namespace, or use another namespace (TEMPORAL_NAMESPACE).",
            )
        missing = tuple(name for name in names if name not in known)
        if missing:
            await client.operator_service.add_search_attributes(
                AddSearchAttributesRequest(
                    namespace=client.namespace,
                    search_attributes=dict.fromkeys(missing, keyword),
                )
            )
    except RPCError as error:
        if error.status is RPCStatusCode.ALREADY_EXISTS:
            return ()  # another worker was faster
        if error.status in (RPCStatusCode.UNAVAILABLE, RPCStatusCode.DEADLINE_EXCEEDED):
            raise TemporalUnreachable(
                "The Temporal server did not answer while search attributes were registered.",
                "Try again when it is up.",
            ) from error
        options = " ".join(f"--name {name} --type Keyword" for name in names)
        raise TemporalRefused(
            f"The search attributes {', '.join(names)} could not be registered in namespace "
            f"{client.namespace}: {error.message}.",
            "Let an administrator of the namespace run `failback search-attributes` or "
            f"`temporal operator search-attribute create {options}`.",
        ) from error
    return missing
