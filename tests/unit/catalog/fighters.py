"""What other processes do to a catalog; started by name from the tests."""

from __future__ import annotations

import sys
from collections.abc import Callable

from failback.catalog.replicas import change, find
from failback.catalog.repository import Catalog
from failback.errors import ClaimHeld
from tests.unit.catalog.build import FAILBACK, NOW


def _wait_for_start() -> None:
    print("ready", flush=True)
    sys.stdin.readline()


def take_leases(url: str, owner: str) -> None:
    """Print the epochs of fifty leases taken."""
    catalog = Catalog(url)
    _wait_for_start()
    print(*(catalog.take_lease("replica/web", owner) for _ in range(50)), flush=True)
    catalog.close()


def take_claims(url: str, run_id: str) -> None:
    """Print which of many pairs of claims were won; opposite runs ask in opposite order."""
    catalog = Catalog(url)
    _wait_for_start()
    won = []
    for number in range(40):
        pair = [f"vm:{number}", f"replica:{number}"]
        try:
            catalog.claim(run_id, pair if run_id == "run-web" else pair[::-1])
            won.append(number)
        except ClaimHeld:
            pass
    print(*won, flush=True)
    catalog.close()


def write_and_hang(url: str, key: str) -> None:
    """Change a replica and never commit it."""
    catalog = Catalog(url)

    def work(session: object) -> None:
        change(find(session, key, lock=True), FAILBACK, "run-x", NOW)  # type: ignore[arg-type]
        session.flush()  # type: ignore[attr-defined]
        _wait_for_start()

    catalog.database.write(work)


if __name__ == "__main__":
    does: Callable[[str, str], None] = globals()[sys.argv[1]]
    does(sys.argv[2], sys.argv[3])
