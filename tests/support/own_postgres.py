"""A Postgres server of a service's own that archives its WAL, kept with the commands of docs/how-to/restore.md."""

from __future__ import annotations

import os
import re
import signal
import subprocess
from pathlib import Path

from deploy.local import postgres
from deploy.local.environment import spare_port

DOCUMENT = Path(__file__).resolve().parents[2] / "docs" / "how-to" / "restore.md"
PASSWORD = "own"


def commands(heading: str) -> list[str]:
    """The shell commands under a heading of the document, block by block."""
    (section,) = re.findall(rf"^## {heading}\n(.*?)(?=^## )", DOCUMENT.read_text(), re.DOTALL | re.MULTILINE)
    blocks: list[str] = []
    for indent, block in re.findall(r"^( *)```sh\n(.*?)^ *```$", section, re.DOTALL | re.MULTILINE):
        blocks.append(re.sub(rf"^{indent}", "", block, flags=re.MULTILINE))
    return blocks


class OwnPostgres:
    """Starts in ``directory``, which must not exist, with one database of one service."""

    def __init__(self, directory: Path, service: str):
        self.port = spare_port()
        self.data, self.backup, self.lost = directory / "data", directory / "backup", directory / "lost"
        self.archive = directory / "archive"
        self.url = f"postgresql://{service}:{PASSWORD}@127.0.0.1:{self.port}/{service}"
        self._binaries = postgres.binaries()
        self._user = postgres._user(self.data)
        directory.mkdir(parents=True)
        self.archive.mkdir()
        if self._user:
            postgres._make_reachable(self._binaries, self._user)
            postgres._make_reachable(directory, self._user)
            for folder in (directory, self.archive):
                os.chown(folder, self._user.pw_uid, self._user.pw_gid)
        postgres._initdb(self._binaries, self.data, PASSWORD, self._user)
        with (self.data / "postgresql.conf").open("a") as settings:
            settings.write(
                f"""
                port = {self.port}
                listen_addresses = '127.0.0.1'
                unix_socket_directories = ''
                timezone = 'UTC'
                archive_mode = on
                archive_command = 'test ! -f {self.archive}/%f && cp %p {self.archive}/%f'
                """
            )
        self.start()
        self.run(f"""psql -qc "CREATE ROLE {service} LOGIN PASSWORD '{PASSWORD}'" postgres
                     createdb --owner={service} {service}""")

    def start(self) -> None:
        self.run('pg_ctl start --wait --pgdata="$PGDATA" --log="$PGDATA.log"')

    def run(self, script: str) -> None:
        """As the server's user; raises AssertionError with the output if a command fails."""
        env = {
            "PATH": f"{self._binaries}:{os.environ['PATH']}", "PGHOST": "127.0.0.1", "PGPORT": str(self.port),
            "PGUSER": postgres.ADMIN, "PGPASSWORD": PASSWORD, "PGDATA": str(self.data), "BACKUP": str(self.backup),
            "ARCHIVE": str(self.archive), "LOST": str(self.lost),
        }  # fmt: skip
        user, group = (self._user.pw_uid, self._user.pw_gid) if self._user else (None, None)
        groups: list[int] | None = [] if self._user else None
        with (self.data.parent / "commands.log").open("a+") as output:  # a file: a server keeps it open
            begin = output.seek(0, os.SEEK_END)
            done = subprocess.run(
                ["sh", "-euc", script], env=env, cwd="/", stdout=output, stderr=output, check=False, timeout=60,
                user=user, group=group, extra_groups=groups,
            )  # fmt: skip
            output.seek(begin)
            assert done.returncode == 0, f"{script}\n{output.read()}"

    def kill(self) -> None:
        """As a power cut does to it: nothing is written any more."""
        os.kill(int((self.data / "postmaster.pid").read_text().split()[0]), signal.SIGKILL)

    def end(self) -> None:
        self.run('pg_ctl stop --mode=immediate --pgdata="$PGDATA" || true')
