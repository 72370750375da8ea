"""A real MCP server over stdio: notes that can be read and sent."""

from __future__ import annotations

import sys
from pathlib import Path

from mcp.server.fastmcp import FastMCP

server = FastMCP("notes")


@server.tool()
def read_note(name: str) -> str:
    """Reads a note."""
    return f"note {name}"


@server.tool()
def send_note(name: str, to: str) -> str:
    """Sends a note."""
    with Path(sys.argv[1]).open("a", encoding="utf-8") as out:
        out.write(f"{name} to {to}\n")
    return "sent"


@server.tool()
def fail() -> str:
    """Fails."""
    raise ValueError("broken")


if __name__ == "__main__":
    server.run()
