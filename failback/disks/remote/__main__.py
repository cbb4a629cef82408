"""`python -m failback.disks.remote serve`: a mover near its disks, without a worker."""

from __future__ import annotations

import argparse
import logging
import signal
import sys
import threading
from pathlib import Path

from failback import logging as logs
from failback.disks.kinds import DatastoreAccess
from failback.disks.remote.address import host_and_port
from failback.disks.remote.service import MoverService, Opener, below
from failback.disks.tls import TlsFiles
from failback.errors import FailbackError, SettingsInvalid

log = logging.getLogger("failback.mover")


def main(arguments: list[str]) -> int:
    """Serve until SIGTERM or SIGINT; 2 for what is wrong with the arguments or files."""
    parser = argparse.ArgumentParser("python -m failback.disks.remote", description=__doc__)
    commands = parser.add_subparsers(required=True)
    serve = commands.add_parser("serve", help="let other movers read disks, by TLS and read-only")
    serve.add_argument("--listen", required=True, metavar="HOST:PORT")
    serve.add_argument(
        "--certificates",
        required=True,
        type=Path,
        metavar="DIR",
        help="folder with ca.pem, certificate.pem and key.pem",
    )
    serve.add_argument(
        "--allow-root",
        action="append",
        default=[],
        type=Path,
        metavar="DIR",
        help="files below it may be read by their path; may be given several times",
    )
    serve.add_argument(
        "--datastore",
        action="append",
        default=[],
        metavar="NAME=DIR",
        help="disks may be read by their vSphere name; may be given several times",
    )
    serve.add_argument(
        "--chain-members-complete",
        action="store_true",
        help="every file of a snapshot chain is a complete image, as in the practice site only",
    )
    serve.add_argument(
        "--peer",
        action="append",
        default=[],
        metavar="NAME",
        help="name that a peer's certificate must carry; may be given several times",
    )
    given = parser.parse_args(arguments)
    logs.configure("INFO", json=False)
    ended = threading.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, lambda *_: ended.set())
    try:
        service = MoverService(
            host_and_port(given.listen),
            TlsFiles.in_folder(given.certificates),
            _opener(given),
            peers=given.peer,
        )
    except FailbackError as error:
        log.error("mover cannot start", extra={"reason": str(error)})
        return 2
    log.info("mover listens", extra={"port": service.port})
    ended.wait()
    service.close()
    return 0


def _opener(given: argparse.Namespace) -> Opener:
    stores = dict[str, Path]()
    for text in given.datastore:
        name, separator, folder = text.partition("=")
        if not (name and separator and folder):
            raise SettingsInvalid(f"{text!r} names no datastore.", "Write --datastore NAME=DIR.")
        stores[name] = Path(folder)
    if not (stores or given.allow_root):
        raise SettingsInvalid("Nothing would be served.", "Give --datastore or --allow-root.")
    access = DatastoreAccess(stores, chain_members_complete=given.chain_members_complete)
    files = below(given.allow_root)
    return lambda name: access.lend(name) if name.startswith("[") else files(name)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
