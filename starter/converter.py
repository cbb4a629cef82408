"""The data converter: pydantic's, and where nobody said what a value must be, nothing is lost.

The SDK drops a signal that it cannot read, and a workflow whose input it cannot read fails its
tasks for ever. Handlers that take raw values get a stand-in instead, and answer for it.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from pydantic import ValidationError
from temporalio.api.common.v1 import Payload
from temporalio.contrib.pydantic import PydanticPayloadConverter
from temporalio.converter import DataConverter

from failback.contracts.base import complaint
from failback.contracts.unreadable import Unreadable


class PatientConverter(PydanticPayloadConverter):
    """Reads a type that it is asked for as pydantic's does; asked for anything, it never fails.

    RawValue as the type of a parameter would not do: the SDK asks for types only where a handler
    has as many parameters as arguments came, so never for an optional or a surplus one.
    """

    def from_payloads(
        self, payloads: Sequence[Payload], type_hints: list[type] | None = None
    ) -> list[Any]:
        """One value for each; Unreadable where no type was asked for and it cannot be read."""
        hints: list[Any] = list(type_hints or [])
        hints += [None] * (len(payloads) - len(hints))
        return [self._value(*pair) for pair in zip(payloads, hints, strict=True)]

    def _value(self, payload: Payload, hint: Any) -> Any:
        try:
            return super().from_payloads([payload], [hint])[0]
        except Exception as error:
            if hint is not None and hint is not Any:
                raise
            return Unreadable(_why(error))


def _why(error: Exception) -> str:
    if isinstance(error, ValidationError):
        return complaint(error)[1]
    return "its encoding is none that is known"


data_converter = DataConverter(payload_converter_class=PatientConverter)
