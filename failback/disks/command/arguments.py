"""The grammar of `python -m failback.disks`, and its help."""

from __future__ import annotations

import argparse
from pathlib import Path

from failback.disks.command.units import amount, fraction, seconds

PROGRAM = "python -m failback.disks"
_WIDE = argparse.RawDescriptionHelpFormatter

DISKS = """\
a disk is one of
  /path/to/disk.img                      a raw image file or a block device on this machine
  nbd://host:10809/export                an NBD server; port and export may be left out
  nbd+unix:///export?socket=/run/a.sock  an NBD server behind a unix socket
  nbds://... , nbds+unix://...           the same over TLS, with --tls DIR
Images of another format (qcow2, VMDK, VHDX) are served with `qemu-nbd` and named by its address.
"""

EXIT = """\
exit status
  0    the disks are equal, or the target has become so
  1    the disks differ (compare, verify)
  2    refused before anything was touched: arguments, sizes, both sides the same disk
  3    it failed: a disk cannot be opened, read or written, a file is full, a server died
  130  interrupted; what is done is done, and the message says how to go on
"""

_COMPARE = """\
Read both disks and tell where they differ. Nothing is ever written.
"""
_COMPARE_EXAMPLES = """\
examples
  {p} compare before.img after.img
  {p} compare nbd://dr.example/web01 nbd://prod.example/web01
  {p} compare a.img b.img --json > differences.jsonl     # every extent, one line each
  {p} compare a.img b.img && echo equal

A line of --json is {{"event": "extent", "offset": N, "length": N}}, in bytes and whole blocks of
64 KiB; the last line is {{"event": "compared", ...}} with the sums.
"""

_SYNC = """\
Make the target's bytes equal to the source's: read both sides, compare blocks of 64 KiB, and write
only those that differ. The source is opened for reading only. The target must not be smaller; what
it has beyond the source's end stays as it is. Nothing may use the target meanwhile.
"""
_SYNC_EXAMPLES = """\
examples
  {p} sync new.img old.img
  {p} sync nbd://dr.example/web01 /dev/vg0/web01 --ledger web01.ledger
  {p} sync nbd://dr.example/web01 /dev/vg0/web01 --extents changed.json   # only these areas
  truncate -s 40G copy.img && {p} sync /dev/vg0/web01 copy.img --method full --blank-target
  {p} sync a.img nbd://prod.example/web01 --bandwidth 50M --json

Going on after an interruption: with --ledger FILE what is finished and flushed is remembered, and
the same command goes on from there; without it everything is compared again, but what is already
equal is not written again. A ledger holds for these two disks as they are: if one of them becomes
another disk, has another size, or (a file) was written to as a source, it begins anew. Once all is
done, the next call begins anew as well.

The extents of --extents are a JSON array of {{"offset": N, "length": N}}, in bytes: everything that
changed on the source AND everything that changed on the target since they were equal. Give the
option twice where these are two files.
"""

_VERIFY = """\
Digest both disks (BLAKE3) and tell whether they are equal. Prints the root over all parts that were
checked: by default the whole disk. The key of the digest is drawn anew each time, so that nobody
can prepare content that collides; a root is a record of this check, not a name of the content.
"""
_VERIFY_EXAMPLES = """\
examples
  {p} verify a.img nbd://prod.example/web01
  {p} verify a.img b.img --ledger web01.ledger                # what that sync wrote, and a sample
  {p} verify a.img b.img --extents changed.json --sample 5%
  {p} verify a.img b.img --ledger web01.ledger --whole
"""


def parser() -> argparse.ArgumentParser:
    """The whole grammar."""
    top = argparse.ArgumentParser(
        prog=PROGRAM,
        description="Compare, synchronise and verify two disks. No service is needed.",
        epilog=f"{DISKS}\n{EXIT}\nexamples: see `{PROGRAM} sync --help`.",
        formatter_class=_WIDE,
    )
    commands = top.add_subparsers(title="commands", metavar="COMMAND", dest="name", required=True)
    compare = _command(commands, "compare", "tell where two disks differ", _COMPARE)
    compare.epilog = _epilog(_COMPARE_EXAMPLES)
    _reading(
        compare, extents="compare only these areas: array of {offset, length} in JSON; - : stdin"
    )
    sync = _command(commands, "sync", "make the target equal to the source", _SYNC)
    sync.epilog = _epilog(_SYNC_EXAMPLES)
    _reading(
        sync,
        extents="areas for --method tracked: array of {offset, length} in JSON; - : stdin; may be "
        "given several times, for example once for each side",
    )
    sync.add_argument(
        "--method",
        choices=("compare", "tracked", "full"),
        help="compare: all that is not zero on both sides (default); tracked: only the areas of "
        "--extents (default if they are given); full: write all of the source, reading no target",
    )
    sync.add_argument(
        "--blank-target",
        action="store_true",
        help="with --method full: the target was just created and reads as zeroes, so zero blocks "
        "need not be written and stay holes",
    )
    sync.add_argument(
        "--ledger",
        type=Path,
        metavar="FILE",
        help="remember finished segments in this file (made if it is not there, mode 0600), and go "
        "on from there next time",
    )
    sync.add_argument(
        "--segment", type=amount, metavar="BYTES", help="unit of the ledger (default 64M)"
    )
    sync.add_argument(
        "--checkpoint",
        type=seconds,
        default=2.0,
        metavar="SECONDS",
        help="longest time between two flushes of the target (default 2); what is not flushed does "
        "not count as finished",
    )
    verify = _command(commands, "verify", "prove that two disks are equal", _VERIFY)
    verify.epilog = _epilog(_VERIFY_EXAMPLES)
    _reading(verify, extents="check these areas and a sample of the rest; - : stdin")
    verify.add_argument(
        "--ledger", type=Path, metavar="FILE", help="check what the sync with this ledger wrote"
    )
    verify.add_argument(
        "--sample",
        type=fraction,
        default=0.01,
        metavar="PART",
        help="part of the remaining segments that is checked too, at random (default 1%%)",
    )
    verify.add_argument("--whole", action="store_true", help="check the whole disk in any case")
    return top


def _command(
    commands: argparse._SubParsersAction[argparse.ArgumentParser],
    name: str,
    summary: str,
    description: str,
) -> argparse.ArgumentParser:
    command = commands.add_parser(
        name, help=summary, description=description, formatter_class=_WIDE
    )
    command.add_argument("source", metavar="SOURCE", help="the disk that is right; only read")
    command.add_argument("target", metavar="TARGET", help="the other disk")
    command.add_argument(
        "--json", action="store_true", help="one JSON object a line on standard output"
    )
    command.add_argument(
        "--tls",
        type=Path,
        metavar="DIR",
        help="folder with ca.pem, certificate.pem and key.pem, for nbds addresses",
    )
    command.add_argument("--quiet", action="store_true", help="no progress")
    return command


def _reading(command: argparse.ArgumentParser, *, extents: str) -> None:
    command.add_argument("--extents", action="append", metavar="FILE", help=extents)
    if command.prog.endswith(("compare", "sync")):
        command.add_argument(
            "--bandwidth",
            type=amount,
            metavar="BYTES",
            help="read at most so much of the source in a second, for example 50M",
        )
    command.add_argument(
        "--raw",
        action="store_true",
        help="a file that looks like qcow2, VMDK or VHD is a raw image all the same",
    )


def _epilog(examples: str) -> str:
    return f"{examples.format(p=PROGRAM)}\n{DISKS}\n{EXIT}"
