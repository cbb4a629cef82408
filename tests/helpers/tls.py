"""Authorities and certificates made on the fly, and folders of PEM files as users have them."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from pathlib import Path

import trustme

from failback.disks.tls import TlsFiles


class Authority:
    """A private authority for one test."""

    def __init__(self, root: Path) -> None:
        self.root = root
        self._ca = trustme.CA()

    def issue(self, folder: str, *names: str, expired: bool = False) -> TlsFiles:
        """A certificate for these DNS names or IP addresses, in a folder of its own."""
        ended = datetime.now(UTC) - timedelta(days=2) if expired else None
        return self.store(folder, self._ca.issue_cert(*names, not_after=ended))

    def store(self, folder: str, leaf: trustme.LeafCert) -> TlsFiles:
        """The three files, the key readable by its owner only."""
        path = self.root / folder
        path.mkdir(mode=0o700, parents=True)
        files = TlsFiles.in_folder(path)
        self._ca.cert_pem.write_to_path(files.ca)
        files.certificate.write_bytes(b"".join(pem.bytes() for pem in leaf.cert_chain_pems))
        files.key.touch(mode=0o600)
        files.key.write_bytes(leaf.private_key_pem.bytes())
        return files
