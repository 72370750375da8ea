"""The SDK's own unit tests, without us and with the gate in every server that they make."""

from __future__ import annotations

import re
import subprocess
from dataclasses import dataclass
from pathlib import Path

from parts import Parts, environment

FOLDERS = ("interaction", "server", "shared", "issues", "client")
SECONDS = 900
FAILED = re.compile(r"^(?:FAILED|ERROR) (\S+)", re.MULTILINE)
PASSED = re.compile(r"(\d+) passed")


@dataclass(frozen=True)
class Ran:
    """One run: how many pass, and which do not."""

    passed: int
    failing: frozenset[str]


def run(parts: Parts, log: Path, *, guarded: bool) -> Ran:
    """Runs them in the SDK's unpacked sources."""
    more = ("-p", "guard_plugin") if guarded else ()
    options = (
        "-q",
        "-rfE",
        "--tb=no",
        "-o",
        "addopts=",
        "-o",
        "log_cli=false",
        "-o",
        "filterwarnings=",
    )
    limits = ("-n", "2", "--timeout", "60", "--timeout-method=thread")
    done = subprocess.run(
        [
            *(str(parts.suite), "-m", "pytest", *options, "-p", "anyio", *more, *limits),
            *(f"tests/{each}" for each in FOLDERS),
        ],
        cwd=parts.sdist,
        env=environment(PYTHONPATH=str(Path(__file__).parent)),
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        timeout=SECONDS,
        check=False,
    )
    log.write_text(done.stdout, encoding="utf-8")
    passed = PASSED.findall(done.stdout)
    return Ran(int(passed[-1]) if passed else 0, frozenset(FAILED.findall(done.stdout)))
