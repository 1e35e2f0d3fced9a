"""Runs one contender in a process of its own: ours in this environment, a peer in the peers' environment."""

from __future__ import annotations

import hashlib
import json
import os
import subprocess
import sys
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

__all__ = ["peers_python", "run"]

_HERE = Path(__file__).parent
_ROOT = _HERE.parents[1]
_FOLDER = _HERE.with_name(".peers")
_REQUIREMENTS = _HERE.with_name("peers.txt")


def peers_python() -> Path:
    """Return the Python of the peers' environment; it is made, or made anew, where ``peers.txt`` asks for another."""
    python, stamp = _FOLDER / "bin" / "python", _FOLDER / "made-from"
    wanted = hashlib.sha256(_REQUIREMENTS.read_bytes()).hexdigest()
    if python.exists() and stamp.exists() and stamp.read_text(encoding="utf-8") == wanted:
        return python
    print(f"making the peers' environment in {_FOLDER} ...", flush=True)
    subprocess.run([sys.executable, "-m", "venv", "--clear", str(_FOLDER)], check=True)
    (_FOLDER / ".gitignore").write_text("*\n", encoding="utf-8")
    quiet = [str(python), "-m", "pip", "install", "--quiet", "--disable-pip-version-check"]
    torch = next(line for line in _REQUIREMENTS.read_text(encoding="utf-8").splitlines() if line.startswith("torch=="))
    subprocess.run([*quiet, torch], check=True)  # alone first, so that nothing asks for another build of it
    subprocess.run([*quiet, "-r", str(_REQUIREMENTS)], check=True)
    stamp.write_text(wanted, encoding="utf-8")
    return python


def run(program: str, case: Mapping[str, Any], folder: Path, *, peer: bool) -> dict[str, Any]:
    """Run ``_peers/PROGRAM.py`` on ``case`` and return its answer.

    Args:
        program: name of the adapter.
        case: what it is asked, plain data; ``threads`` in it becomes every library's number of threads.
        folder: working folder of the process; its log stays there.
        peer: whether it runs in the peers' environment.

    Raises:
        SystemExit: it failed; the end of its log is the message.
    """
    folder.mkdir(parents=True, exist_ok=True)
    asked, answer, log = folder / "case.json", folder / "answer.json", folder / "log.txt"
    asked.write_text(json.dumps(dict(case)), encoding="utf-8")
    answer.unlink(missing_ok=True)
    threads = str(case["threads"])
    names = ("OMP_NUM_THREADS", "MKL_NUM_THREADS", "OPENBLAS_NUM_THREADS", "NUMBA_NUM_THREADS")
    # The peers' environment reads our evaluator (NumPy alone) from here, so that all are judged by one.
    environment = os.environ | dict.fromkeys(names, threads) | {"CUDA_VISIBLE_DEVICES": ""}
    environment["PYTHONPATH"] = str(_ROOT / "src")
    python = peers_python() if peer else Path(sys.executable)
    command = [str(python), "-W", "ignore", str(_HERE / f"{program}.py"), str(asked), str(answer)]
    started = time.time()
    with log.open("w", encoding="utf-8") as said:
        done = subprocess.run(command, check=False, cwd=folder, env=environment, stdout=said, stderr=subprocess.STDOUT)
    if done.returncode or not answer.exists():
        end = "\n".join(log.read_text(encoding="utf-8", errors="replace").splitlines()[-20:])
        raise SystemExit(f"{program} must answer, it ended with {done.returncode}; {log} ends with\n{end}")
    found: dict[str, Any] = json.loads(answer.read_text(encoding="utf-8"))
    return found | {"process_seconds": time.time() - started}
