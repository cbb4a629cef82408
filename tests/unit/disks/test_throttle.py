from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from failback.disks.throttle import Throttle
from failback.errors import Stopped


class Time:
    """A clock that moves only when somebody sleeps."""

    def __init__(self) -> None:
        self.now = 0.0

    def __call__(self) -> float:
        return self.now

    def sleep(self, seconds: float) -> None:
        self.now += seconds


def nothing() -> None:
    pass


@given(st.integers(1, 10_000), st.lists(st.integers(1, 5_000), min_size=5, max_size=50))
def test_the_rate_holds_on_average_and_no_request_is_too_large(
    limit: int, requests: list[int]
) -> None:
    time = Time()
    throttle = Throttle(limit, clock=time)

    for count in requests:
        throttle.take(count, check=nothing, sleep=time.sleep)

    # The last one leaves a debt, and the bucket began full.
    assert sum(requests[:-1]) <= limit * time.now + limit * 0.25 + 1
    assert time.now <= sum(requests) / limit + 0.3 * len(requests)


def test_without_a_limit_nothing_waits() -> None:
    assert Throttle(None, clock=Time()).try_take(1 << 40) == 0


def test_a_new_limit_holds_at_once_for_those_who_wait() -> None:
    time = Time()
    throttle = Throttle(1, clock=time)
    throttle.take(100, check=nothing, sleep=time.sleep)
    assert throttle.try_take(1) > 90

    throttle.set_limit(1_000)
    assert throttle.try_take(1) < 0.2

    throttle.set_limit(None)
    assert throttle.try_take(1 << 30) == 0
    assert throttle.limit_bytes_s is None


def test_an_idle_bucket_saves_up_only_its_burst() -> None:
    time = Time()
    throttle = Throttle(100, clock=time, burst_s=0.5)
    time.now = 1000

    throttle.take(50, check=nothing, sleep=time.sleep)
    assert time.now == 1000
    assert throttle.try_take(1) > 0


def test_check_is_called_while_waiting_and_ends_it() -> None:
    time = Time()
    throttle = Throttle(1, clock=time)
    throttle.take(100, check=nothing, sleep=time.sleep)
    calls: list[float] = []

    def check() -> None:
        calls.append(time.now)
        if time.now > 3:
            raise Stopped("enough")

    with pytest.raises(Stopped):
        throttle.take(1, check=check, sleep=time.sleep)

    assert len(calls) > 10


@pytest.mark.parametrize("limit", [0, -1])
def test_a_limit_of_nothing_is_refused(limit: int) -> None:
    with pytest.raises(ValueError, match="never let anything through"):
        Throttle(limit, clock=Time())
