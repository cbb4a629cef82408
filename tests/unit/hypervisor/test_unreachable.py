"""Sentences about calls without an answer that no server on this machine can bring about."""

from __future__ import annotations

import socket

import pytest

from failback.errors import SiteUnreachable
from failback.hypervisor.vsphere.unreachable import unreachable


@pytest.mark.parametrize(
    ("errno", "sentence"),
    [
        (socket.EAI_NONAME, "there is no host vcenter.example:443"),
        (socket.EAI_AGAIN, "no name server answers about vcenter.example:443"),
    ],
)
def test_a_name_server_that_is_silent_does_not_say_that_there_is_no_such_host(
    errno: int, sentence: str
) -> None:
    error = unreachable(socket.gaierror(errno, "said"), "dr", "vcenter.example:443", "log in")

    assert isinstance(error, SiteUnreachable)
    assert error.retryable
    assert sentence in str(error)
