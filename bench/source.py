"""Which source was put to the test or measured: results of another one do not count."""

from __future__ import annotations

import hashlib

from deploy.local.supervisor import ROOT

TESTED = ("services", "shared")
SUFFIXES = (".py", ".sql", ".html", ".txt")  # of programs, migrations and mails


def version() -> str:
    """A digest of what is in the files of the services and of what they share: the same wherever they lie."""
    digest = hashlib.sha256()
    for folder in TESTED:
        for file in sorted((ROOT / folder).rglob("*")):
            if file.suffix in SUFFIXES:
                digest.update(f"{file.relative_to(ROOT).as_posix()}\n".encode())
                digest.update(hashlib.sha256(file.read_bytes()).digest())
    return digest.hexdigest()[:12]
