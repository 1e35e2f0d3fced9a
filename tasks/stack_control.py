"""The supervisor of a stack: started, asked, told, and cleaned up after where it was killed."""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
import sys
import time
import xmlrpc.client  # spoken over a socket that is this user's alone
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import psutil

from stillhouse.errors import StackError, one_line
from tasks.stack_layout import MARK, Layout
from tasks.stack_programs import Program

__all__ = ["Standing", "Supervisor", "sweep"]

#: Seconds for the supervisor itself to answer, and to stop everything.
_ANSWER = 30.0
_STOP = 150.0

#: Seconds between two looks at something that is waited for.
_PAUSE = 0.1


@dataclass(frozen=True)
class Standing:
    """How one program stands."""

    name: str
    state: str
    """The supervisor's word: ``RUNNING``, ``STARTING``, ``BACKOFF``, ``STOPPED``, ``FATAL`` ..."""
    pid: int
    """0 where it does not run."""
    seconds: float
    """Since it was started."""

    @property
    def runs(self) -> bool:
        """Whether it runs, or has just been started."""
        return self.state in ("RUNNING", "STARTING")


class Supervisor:
    """The control of one stack's supervisor."""

    def __init__(self, layout: Layout) -> None:
        self.layout = layout

    def _call(self, method: str, *arguments: object) -> object:
        from supervisor.xmlrpc import SupervisorTransport

        transport = SupervisorTransport(None, None, f"unix://{self.layout.control}")
        with xmlrpc.client.ServerProxy("http://127.0.0.1", transport=transport) as server:
            return getattr(server.supervisor, method)(*arguments)

    def answers(self) -> bool:
        """Say whether it runs."""
        try:
            return bool(self._call("getState"))
        except (OSError, xmlrpc.client.Error):
            return False

    def spawn(self, environment: Mapping[str, str]) -> None:
        """Start it; it goes on when this process ends.

        Raises:
            StackError: it does not come up.
        """
        done = subprocess.run(
            [Path(sys.executable).parent / "supervisord", "-c", self.layout.config],
            cwd=self.layout.stack,
            env=environment,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.PIPE,
            text=True,
            check=False,
        )
        until = time.monotonic() + _ANSWER
        while not self.answers():
            if done.returncode or time.monotonic() > until:
                raise StackError(
                    one_line(f"the supervisor must start, it said: {done.stderr or 'nothing'} ({self.layout.config})")
                )
            time.sleep(_PAUSE)

    def start(self, program: Program) -> None:
        """Start a program that does not run; whether it then works is asked elsewhere.

        Raises:
            StackError: the supervisor knows no such program.
        """
        try:
            self._call("startProcess", program.id, False)
        except xmlrpc.client.Fault as fault:
            if "ALREADY_STARTED" not in fault.faultString:
                raise StackError(
                    f"the supervisor must start {program.name}, it said: {fault.faultString} ({self.layout.config})"
                ) from None

    def standings(self) -> dict[str, Standing]:
        """Return program → how it stands, or nothing where the supervisor does not run."""
        try:
            listed = self._call("getAllProcessInfo")
        except (OSError, xmlrpc.client.Error):
            return {}
        return {
            one["name"]: Standing(
                one["name"], one["statename"], int(one["pid"]), float(one["now"] - one["start"] if one["start"] else 0)
            )
            for one in listed  # type: ignore[attr-defined]
        }

    def wait_for(self, programs: Sequence[Program], ready: Callable[[], bool], what: str, patience: float) -> None:
        """Wait until ``ready`` says so.

        Raises:
            StackError: a program gave up, or ``patience`` seconds went by.
        """
        until = time.monotonic() + patience
        while not ready():
            found = self.standings()
            for program in programs:
                standing = found.get(program.name)
                if standing is None or standing.state in ("FATAL", "STOPPED", "EXITED") or time.monotonic() > until:
                    log = self.layout.logs / f"{program.name}.log"
                    raise StackError(
                        one_line(
                            f"{what}, found {program.name} {standing.state if standing else 'not supervised'}: "
                            f"read {log}, then `make stack` again or `make stack-down`; it ends with: {_tail(log)}"
                        )
                    )
            time.sleep(_PAUSE)

    def stop(self) -> None:
        """Stop everything, the last started first, then the supervisor, and wait until it is gone.

        Raises:
            StackError: it did not go.
        """
        pid = self._call("getPID")
        self._call("shutdown")
        with contextlib.suppress(psutil.NoSuchProcess):
            try:
                psutil.Process(int(str(pid))).wait(_STOP)
            except psutil.TimeoutExpired:
                raise StackError(
                    f"the stack must stop, found process {pid} still at work after {_STOP:.0f} s: "
                    f"read {self.layout.logs / 'supervisord.log'}, then try again"
                ) from None


def sweep(layout: Layout, patience: float = 20.0) -> list[str]:
    """End every process that carries the stack's mark, gently first; names of those that were left.

    The supervisor goes first, or it would start the others again; PostgreSQL last, for the others write to it.
    """
    names = []
    ranks = [_is_supervisor, lambda process: not _is_postgres(process), _is_postgres]
    for among in ranks:
        left = [process for process in psutil.process_iter() if _marked(process, layout) and among(process)]
        for process in left:
            with contextlib.suppress(psutil.Error):
                names.append(process.name())
                process.send_signal(signal.SIGINT if _is_postgres(process) else signal.SIGTERM)
        _gone, stubborn = psutil.wait_procs(left, timeout=patience)
        for process in stubborn:
            with contextlib.suppress(psutil.NoSuchProcess):
                process.kill()
        psutil.wait_procs(stubborn, timeout=patience)
    return sorted(set(names))


def _marked(process: psutil.Process, layout: Layout) -> bool:
    if process.pid == os.getpid():
        return False
    try:
        # A child of PostgreSQL has written over its environment; it leaves with its parent.
        return process.status() != psutil.STATUS_ZOMBIE and process.environ().get(MARK) == str(layout.stack)
    except psutil.Error:
        return False


def _is_supervisor(process: psutil.Process) -> bool:
    with contextlib.suppress(psutil.Error):
        return any(Path(word).name == "supervisord" for word in process.cmdline()[:3])
    return False


def _is_postgres(process: psutil.Process) -> bool:
    with contextlib.suppress(psutil.Error):
        return process.name() == "postgres"
    return False


def _tail(log: Path) -> str:
    try:
        lines = [line.strip() for line in log.read_text(errors="replace").splitlines() if line.strip()]
    except FileNotFoundError:
        return "nothing"
    return lines[-1][:200] if lines else "nothing"
