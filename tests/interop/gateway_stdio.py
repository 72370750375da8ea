"""`python gateway_stdio.py LICTOR_TOML SERVER COMMAND…`: the gateway before a server, on stdio."""

from __future__ import annotations

import sys
from pathlib import Path

from lictor import Gate
from lictor_mcp.gateway.stdio import StdioGateway, environment, serve

if __name__ == "__main__":
    toml, server, *command = sys.argv[1:]
    gate = Gate.from_file(Path(toml))
    code = serve(lambda: StdioGateway(gate, server, command, env=environment()))
    gate.close()
    sys.exit(code)
