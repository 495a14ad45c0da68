"""`python -m deploy.local`: start, look at and stop the stack of this checkout. The Makefile calls it."""

import shlex
import sys
import time
from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console
from rich.table import Table

from deploy.local.errors import StackError
from deploy.local.stack import ALL, DEFAULT, Stack

app = typer.Typer(no_args_is_help=True, add_completion=False, pretty_exceptions_enable=False)
console = Console()
stack = Stack(DEFAULT)


@app.callback()
def choose(directory: Annotated[Path, typer.Option(help="Where this stack keeps everything.")] = DEFAULT) -> None:
    """Isthmus on this machine, without containers."""
    global stack
    stack = Stack(directory)


@app.command()
def up(
    services: Annotated[list[str] | None, typer.Argument(help="Only these services; all by default.")] = None,
    infra_only: Annotated[bool, typer.Option(help="Only Kafka and Postgres.")] = False,
) -> None:
    """Start what does not run yet, restart what has changed, wait until all is ready."""
    stack.up(services or ALL, infra_only)


@app.command()
def down() -> None:
    """Stop everything; the data stay."""
    stack.down()


@app.command()
def stop(name: str) -> None:
    """Stop one process until the next `up`, for instance to run it under a debugger."""
    stack.stop(name)


@app.command()
def clean() -> None:
    """Stop everything and remove all local data."""
    stack.clean()


@app.command()
def status() -> None:
    """A line per process."""
    rows = stack.status()
    if not rows:
        console.print("Nothing runs. `make up` starts the stack.")
        return
    table = Table("process", "pid", "up since", "restarts", "last exit", "health", box=None)
    table.add_column("address", no_wrap=True)
    for name, row in rows.items():
        since = time.strftime("%H:%M:%S", time.localtime(row["started"])) if row["pid"] else "-"
        health = "[green]ready[/]" if row["ready"] else "[red]not ready[/]"
        last_exit = "-" if row["last_exit"] is None else str(row["last_exit"])
        table.add_row(name, str(row["pid"] or "-"), since, str(row["restarts"]), last_exit, health, row["url"])
    console.print(table)


@app.command()
def logs(
    name: Annotated[str | None, typer.Argument(help="One process; all by default.")] = None,
    follow: Annotated[bool, typer.Option("--follow", "-f", help="Go on until Ctrl-C.")] = False,
    lines: Annotated[int, typer.Option("--lines", "-n", help="How many of each log's last lines.")] = 20,
) -> None:
    """The logs of all processes in one view."""
    paths = [stack.log(name)] if name else sorted((stack.directory / "logs").glob("*.log"))
    if not any(path.exists() for path in paths):
        raise StackError(f"There is no log of {name or 'this stack'} yet. Run `make up` first.")
    width = max(len(path.stem) for path in paths)
    read: dict[Path, int] = {}
    for path in paths:
        content = path.read_bytes() if path.exists() else b""
        read[path] = content.rfind(b"\n") + 1
        _show(path, content[: read[path]].splitlines()[-lines:], width)
    while follow:
        time.sleep(0.3)
        for path in paths:
            size = path.stat().st_size if path.exists() else 0
            if size < read[path]:  # it was rotated
                read[path] = 0
            if size > read[path]:
                with path.open("rb") as file:
                    file.seek(read[path])
                    content = file.read()
                whole = content.rfind(b"\n") + 1
                read[path] += whole
                _show(path, content[:whole].splitlines(), width)


def _show(path: Path, lines: list[bytes], width: int) -> None:
    for line in lines:
        print(f"{path.stem:<{width}} | {line.decode(errors='replace')}")


@app.command()
def env(name: str) -> None:
    """A process's environment, for `eval "$(python -m deploy.local env order)"` before running it by hand."""
    for key, value in stack.env(name).items():
        print(f"export {key}={shlex.quote(value)}")


@app.command()
def token(client: Annotated[str, typer.Option(help="demo (every scope), shop or support.")] = "demo") -> None:
    """A bearer token: curl -H "Authorization: Bearer $(python -m deploy.local token)" ..."""
    print(stack.token(client))


if __name__ == "__main__":
    try:
        app()
    except StackError as error:
        print(f"\n{error}", file=sys.stderr)
        sys.exit(1)
    except KeyboardInterrupt:
        sys.exit(130)
