"""`python guarded_client.py CLIENT HOMES URL`: the SDK's own client for the suite, guarded.

Every scenario is a server of its own: what one offers another may offer otherwise.
"""

from __future__ import annotations

import importlib.util
import os
import sys
from pathlib import Path
from typing import Any

from mcp.client.client import Client
from mcp.client.streamable_http import streamable_http_client

from lictor import Gate
from lictor_mcp import guard_transport


def load(path: str) -> Any:
    """The client's module, not as the main one."""
    spec = importlib.util.spec_from_file_location("conformance_client", path)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = module
    spec.loader.exec_module(module)
    return module


def main(path: str, homes: str, url: str) -> None:
    """Runs one scenario."""
    module = load(path)
    scenario = os.environ.get("MCP_CONFORMANCE_SCENARIO", "none").replace("/", "-")
    gate = Gate.from_file(Path(homes) / scenario / "lictor.toml")

    def guarded(target: Any, *arguments: Any, **options: Any) -> Client:
        transport = streamable_http_client(target) if isinstance(target, str) else target
        made = guard_transport(transport, gate, server="scenario")
        return Client(made, *arguments, **options)

    module.Client = guarded
    sys.argv = [path, url]
    try:
        module.main()
    finally:
        gate.close()


if __name__ == "__main__":
    main(*sys.argv[1:])
