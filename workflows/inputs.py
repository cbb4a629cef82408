"""Reads what a workflow is started with, where input that does not fit can be answered.

A typed parameter, or a fixed number of them, would fail the workflow task for ever, and the id of
the workflow would stay taken.
"""

from __future__ import annotations

from typing import Any, TypeVar

from pydantic import ValidationError
from temporalio.exceptions import ApplicationError

from failback.contracts.base import WHOLE, Contract, complaint
from failback.contracts.plan import Finding
from failback.contracts.unreadable import Unreadable
from failback.contracts.words import Severity

C = TypeVar("C", bound=Contract)


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


def required(model: type[C], raw: tuple[Any, ...]) -> C:
    """For a workflow that has no findings: it fails, and its failure says why."""
    try:
        return read(model, raw)
    except NotUnderstood as error:
        text = f"The input is not understood ({error}); give it one object as documented."
        raise ApplicationError(text, type="InputInvalid", non_retryable=True) from None
