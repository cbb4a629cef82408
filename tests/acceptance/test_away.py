"""A site that goes away; test_return.py sees that its run goes on."""

from __future__ import annotations

import pytest

from failback.contracts.words import Phase, RequestKind, StepName
from tests.acceptance.outage import Outage

pytestmark = pytest.mark.acceptance


def test_a_site_that_goes_away_stops_the_run_and_the_run_says_why(outage: Outage) -> None:
    call = outage.stopped
    assert (call.code, call.step) == ("SiteUnreachable", StepName.PROTECT_TARGET)
    assert call.from_phase is Phase.SYNCING
    assert call.probing and "production" in call.message
    assert call.may == (RequestKind.RETRY, RequestKind.UNDO)
