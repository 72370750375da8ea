"""A real MCP server over stdio, of mcp 2.x: notes that can be read and sent.

What it says of `send_note` is its second argument, so that it can change between two starts.
"""

from __future__ import annotations

import sys
from pathlib import Path

from mcp.server.mcpserver import MCPServer

server = MCPServer("notes")


@server.tool()
def read_note(name: str) -> str:
    """Reads a note."""
    return f"note {name}"


@server.tool(description=sys.argv[2])
def send_note(name: str, to: str) -> str:
    with Path(sys.argv[1]).open("a", encoding="utf-8") as out:
        out.write(f"{name} to {to}\n")
    return "sent"


if __name__ == "__main__":
    server.run()
