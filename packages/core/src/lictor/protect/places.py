"""Places outside our folder from where the gate, or the person, can be taken over.

Rules enforced here:

1. Nothing with an effect may reach what starts programs for the person or the agent: the settings
   of MCP clients, what shells and logins run, what Python runs before us, hooks of version control.
"""

from __future__ import annotations

import os
import pwd
import site
import sys
import sysconfig
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Final

HOME: Final = (
    # MCP clients
    ".config/Claude",
    "Library/Application Support/Claude",
    ".claude",
    ".claude.json",
    ".cursor",
    ".vscode",
    ".config/Code/User",
    "Library/Application Support/Code/User",
    ".codeium",
    ".windsurf",
    ".config/zed",
    ".continue",
    ".gemini",
    ".codex",
    ".config/goose",
    ".mcp.json",
    # shells, logins, timers
    ".bashrc",
    ".bash_profile",
    ".bash_login",
    ".bash_logout",
    ".bash_aliases",
    ".profile",
    ".zshrc",
    ".zshenv",
    ".zprofile",
    ".zlogin",
    ".zlogout",
    ".config/fish",
    ".inputrc",
    ".xprofile",
    ".xsessionrc",
    ".config/autostart",
    ".config/systemd",
    ".config/environment.d",
    ".pam_environment",
    "Library/LaunchAgents",
    # keys, and programs that run what their settings say
    ".ssh",
    ".gitconfig",
    ".config/git",
    ".config/pip",
    ".pip",
    ".pypirc",
)
_PROJECT: Final = (
    ".mcp.json",
    ".cursor",
    ".vscode",
    ".claude",
    ".windsurf",
    ".gemini",
    ".codex",
    ".env",
    ".envrc",
)
_REPOSITORY: Final = ("hooks", "config")
STARTERS: Final = frozenset({"sitecustomize.py", "usercustomize.py", "pyvenv.cfg"})
"""File names that Python looks for by itself, wherever it looks for modules."""


def starters(folders: Iterable[Path]) -> Iterator[str]:
    """What an effect may not reach.

    Args:
        folders: The folders of our own files.
    """
    for home in {os.path.expanduser("~"), _account_home()} - {"", "/"}:
        yield from (os.path.join(home, name) for name in HOME)
    for folder in folders:
        yield from (str(folder / name) for name in _PROJECT)
        for above in (folder, *folder.parents):
            yield from (str(above / ".git" / name) for name in _REPOSITORY)
    yield from python()
    yield "/proc"


def _account_home() -> str:
    try:
        return pwd.getpwuid(os.getuid()).pw_dir
    except KeyError:
        return ""


def python() -> Iterator[str]:
    """Where Python finds what it runs before the program, and the program itself."""
    paths = sysconfig.get_paths()
    yield from {paths["purelib"], paths["platlib"], site.getusersitepackages()}
    yield str(Path(__file__).parents[1])
    program = getattr(sys.modules.get("__main__"), "__file__", None)
    if program:
        yield os.path.abspath(program)
