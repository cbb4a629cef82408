"""What was written to a history under earlier contracts is read with those of today, and whole.

A run that began months ago is replayed from such payloads: a field that is required now and was not
there then, or one that has another name now, stops it or loses what it said.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from functools import cache
from typing import Any

import pytest
from pydantic import BaseModel
from temporalio.api.common.v1 import Payloads
from temporalio.api.history.v1 import HistoryEvent
from temporalio.client import WorkflowHistory
from temporalio.contrib.pydantic import pydantic_data_converter

from failback.contracts.operations import CleanTarget, Done, Verify
from failback.contracts.plan import BeginAnswer
from failback.contracts.preview import Preview
from failback.contracts.remains import ReconcileRequest, Remains
from failback.contracts.requests import Answer, Request
from failback.contracts.start import StartRequest
from failback.contracts.status import Status
from failback.contracts.words import RequestKind
from tests.replay.contents import recordings
from tests.workflow.stand_ins import ALL
from workflows.carried import Carried

CONVERTER = pydantic_data_converter.payload_converter
Model = type[BaseModel]
STARTED: dict[str, tuple[Model, ...]] = {
    "Failback": (StartRequest, Carried),
    "FailbackCleanup": (CleanTarget,),
    "FailbackReconcile": (ReconcileRequest,),
    "FailbackPreview": (StartRequest,),
}
"""Inputs of the workflows."""
ENDED: dict[str, Model] = {
    "Failback": Status,
    "FailbackCleanup": Done,
    "FailbackReconcile": Remains,
    "FailbackPreview": Preview,
}
OPERATIONS = {operation.name: operation for operation in ALL}
REQUESTS = {kind.value for kind in RequestKind}


class Reader:
    """Reads the events of one execution: what was said, and the model for it."""

    def __init__(self) -> None:
        self.workflow = ""
        self.names: dict[int, str] = {}

    def said(self, event: HistoryEvent) -> Iterator[tuple[str, Payloads, tuple[Model, ...]]]:
        """Name, payloads, models."""
        kind = event.WhichOneof("attributes")
        if kind is None:
            return
        more: Any = getattr(event, kind)
        match kind.removesuffix("_event_attributes"):
            case "workflow_execution_started":
                self.workflow = more.workflow_type.name
                yield self.workflow, more.input, STARTED[self.workflow]
            case "start_child_workflow_execution_initiated" | "workflow_execution_continued_as_new":
                yield more.workflow_type.name, more.input, STARTED[more.workflow_type.name]
            case "workflow_execution_completed":
                yield f"end of {self.workflow}", more.result, (ENDED[self.workflow],)
            case "activity_task_scheduled":
                name = self.names[event.event_id] = more.activity_type.name
                yield name, more.input, (OPERATIONS[name].argument,)
            case "activity_task_completed":
                name = self.names[more.scheduled_event_id]
                yield f"result of {name}", more.result, (OPERATIONS[name].result,)
            case "workflow_execution_signaled":
                assert more.signal_name in REQUESTS
                yield more.signal_name, more.input, (Request,)
            case "workflow_execution_update_accepted":
                asked = more.accepted_request.input
                self.names[event.event_id] = asked.name
                assert asked.name in {"begin", *REQUESTS}
                yield asked.name, asked.args, (Request,)
            case "workflow_execution_update_completed":
                name = self.names[more.accepted_event_id]
                answer = BeginAnswer if name == "begin" else Answer
                yield f"answer to {name}", more.outcome.success, (answer,)


@cache
def everything() -> tuple[tuple[str, str, Any, Model], ...]:
    """Of all histories: the recording, the name, the value as it was written, the model."""
    found = []
    for stem, files in recordings().items():
        for file in files:
            reader = Reader()
            for event in WorkflowHistory.from_json(stem, file.read_text()).events:
                for name, payloads, models in reader.said(event):
                    for payload, model in zip(payloads.payloads, models, strict=False):
                        found.append((stem, name, json.loads(payload.data or b"null"), model))
    return tuple(found)


def lost(written: Any, read: Any, place: str = "") -> list[str]:
    """Fields that were written and that nobody reads any more."""
    if isinstance(written, dict) and isinstance(read, dict):
        gone = [f"{place}.{key}" for key in written if key not in read]
        return gone + [
            each for key in written if key in read for each in lost(written[key], read[key], key)
        ]
    if isinstance(written, list) and isinstance(read, list):
        return [
            each
            for one, other in zip(written, read, strict=True)
            for each in lost(one, other, place)
        ]
    return []


def decoded(value: Any, model: Model) -> BaseModel:
    """As the workflow or the activity gets it."""
    made: BaseModel = CONVERTER.from_payloads(CONVERTER.to_payloads([value]), [model])[0]
    return made


@pytest.mark.parametrize("stem", list(recordings()))
def test_everything_that_was_written_is_read_today(stem: str) -> None:
    for recording, name, value, model in everything():
        if recording == stem and value is not None:
            read = decoded(value, model)
            assert lost(value, read.model_dump(mode="json")) == [], name


def test_every_operation_was_asked_and_has_answered() -> None:
    names = {name for _, name, _, _ in everything()}
    for operation in ALL:
        assert {operation.name, f"result of {operation.name}"} <= names


def test_a_new_field_that_is_required_is_noticed() -> None:
    class Stricter(Verify):
        budget_s: float

    written = next(value for _, name, value, _ in everything() if name == "verify")
    assert isinstance(decoded(written, Verify), Verify)
    with pytest.raises(ValueError, match="budget_s"):
        decoded(written, Stricter)


def test_a_field_of_another_name_is_noticed() -> None:
    written = next(value for _, name, value, _ in everything() if name == "verify")
    read = {key: value for key, value in written.items() if key != "whole_disk"}
    assert lost({"plan": [written]}, {"plan": [read]}) == ["plan.whole_disk"]
