"""Starts a service again without the second or two that its imports take: `python -m bench.faults.forks MODULE`.

It imports what `python -m MODULE` would, forks, and runs the module in the child. A child ended by SIGKILL is followed
by a new one at once; however else it ends, this ends the same way. SIGTERM and SIGINT are handed on to the child.

    stack.up(env=env, launcher=LAUNCHER)
    kill(stack, "order", signal.SIGKILL)   # the child: `stack.kill` would mean the process that forks
"""

from __future__ import annotations

import gc
import importlib
import os
import runpy
import signal
import sys
from pathlib import Path

import psutil

from deploy.local.errors import StackError
from deploy.local.processes import Identity, die_with_parent
from deploy.local.stack import Stack

LAUNCHER = "bench.faults.forks"
_HANDED_ON = {signal.SIGTERM, signal.SIGINT}
_AWAITED = {*_HANDED_ON, signal.SIGCHLD}


def identity(stack: Stack, name: str) -> Identity | None:
    """The process that is the service, of a stack whose services are started by LAUNCHER; None while there is none."""
    launcher = stack.pid(name)
    try:
        children = psutil.Process(launcher).children() if launcher else []
    except psutil.NoSuchProcess:
        return None
    return Identity.of(children[0].pid) if children else None


def kill(stack: Stack, name: str, number: int = signal.SIGKILL) -> None:
    """Like `Stack.kill`: after SIGKILL the process is gone when this returns. Raises StackError if there is none."""
    process = identity(stack, name)
    if process is None or not process.send(number):
        raise StackError(f"{name} does not run, so it cannot be signalled.")
    if number == signal.SIGKILL:
        process.wait(10)


def main() -> None:
    module = sys.argv[1]
    signal.pthread_sigmask(signal.SIG_BLOCK, _AWAITED)
    importlib.import_module(f"{module}.__main__")
    del sys.modules[f"{module}.__main__"]  # the child runs it by another name
    tasks = Path("/proc/self/task")
    if tasks.exists() and len(list(tasks.iterdir())) > 1:
        raise SystemExit(f"{module} starts threads when it is imported, and a process with threads must not fork")
    gc.freeze()
    while True:
        child = os.fork()
        if child == 0:
            _become(module)
            return
        code = _attend(child)
        if code is not None:
            raise SystemExit(code)


def _become(module: str) -> None:
    die_with_parent(signal.SIGKILL)
    signal.pthread_sigmask(signal.SIG_UNBLOCK, _AWAITED)
    sys.argv = [module]
    runpy.run_module(module, run_name="__main__", alter_sys=True)


def _attend(child: int) -> int | None:
    """Wait for the child's end: what to end with, or None to start another one."""
    told = False
    while True:
        number = signal.sigwait(_AWAITED)
        if number in _HANDED_ON:
            told = True
            os.kill(child, number)
            continue
        pid, status = os.waitpid(child, os.WNOHANG)
        if pid:
            code = os.waitstatus_to_exitcode(status)
            if code == -signal.SIGKILL and not told:
                return None
            return code if code >= 0 else 128 - code


if __name__ == "__main__":
    main()
