"""Reads what a workflow is started with, where input that does not fit can be answered.

A typed parameter, or a fixed number of them, would fail the workflow task for ever, and the id of
the workflow would stay taken.
"""

from __future__ import annotations

from typing import Any, TypeVar

from pydantic import ValidationError
from pydantic_core import to_json
from temporalio import workflow
from temporalio.exceptions import ApplicationError

from failback.contracts.base import WHOLE, Contract, complaint
from failback.contracts.plan import Finding
from failback.contracts.start import StartRequest
from failback.contracts.unreadable import Unreadable
from failback.contracts.words import Severity

C = TypeVar("C", bound=Contract)

LARGEST = 256 * 1024
"""Bytes of a start request; a real one has a few thousand. It goes into the history with each
execution, and more than once, and the server takes no more than 2 MB at a time."""


class NotUnderstood(Exception):
    """Input that does not fit.

    Args:
        place: of what does not fit, within the input.
        why: as the end of a sentence, without the value.
    """

    def __init__(self, place: str, why: str) -> None:
        super().__init__(f"{place}: {why}")
        self.place, self.why = place, why

    def finding(self) -> Finding:
        """It refuses."""
        return Finding(
            code="INPUT_INVALID",
            severity=Severity.REFUSE,
            object=self.place[:255],
            message=f"The start request is not understood: {self}."[:2000],
            remedy='Give one object such as {"replica": "web01"}.',
        )


def read(model: type[C], raw: tuple[Any, ...], at: int = 0, most: int = 1) -> C:
    """The argument at this place, where no more than `most` may be."""
    if len(raw) > most:
        raise NotUnderstood(WHOLE, f"there are {len(raw)} arguments, and {most} may be")
    value = raw[at] if at < len(raw) else None
    prefix = f"argument {at + 1}, " if at else ""
    if isinstance(value, Unreadable):
        raise NotUnderstood(prefix + WHOLE, value.why)
    try:
        return model.model_validate(value)
    except ValidationError as error:
        place, why = complaint(error)
        raise NotUnderstood(prefix + place, why) from error


def start_request(raw: tuple[Any, ...], most: int = 1) -> StartRequest:
    """The start request; NotUnderstood also where it is too large."""
    request = read(StartRequest, raw, most=most)
    size = len(to_json(raw[0]))
    # A run that began when there was no such limit goes on.
    if size > LARGEST and workflow.patched("bounded-input"):
        raise NotUnderstood(WHOLE, f"it has {size} bytes, and {LARGEST} are the most")
    return request


def required(model: type[C], raw: tuple[Any, ...]) -> C:
    """For a workflow that has no findings: it fails, and its failure says why."""
    try:
        return read(model, raw)
    except NotUnderstood as error:
        text = f"The input is not understood ({error}); give it one object as documented."
        raise ApplicationError(text, type="InputInvalid", non_retryable=True) from None
