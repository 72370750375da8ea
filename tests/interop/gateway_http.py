"""`python gateway_http.py LICTOR_TOML PORT URL`: the gateway before the suite's server, over HTTP.

The suite brings no token, so that whoever comes is the one user here; everything else is as it is.
"""

from __future__ import annotations

import asyncio
import signal
import sys
from pathlib import Path

from fixture_name import SERVER

from lictor import Gate
from lictor_mcp.callers import Caller
from lictor_mcp.gateway.http import HttpGateway, Served, loopback
from lictor_mcp.gateway.http_serve import listener, server
from lictor_mcp.gateway.http_upstream import Upstream


async def main(gate: Gate, port: int, url: str) -> None:
    """Serves until told to end."""
    hosts, origins = loopback(port)
    app = HttpGateway(
        gate,
        [Served(SERVER, Upstream(url), SERVER)],
        who=lambda _: Caller("alice"),
        agent="tester",
        template="interop",
        hosts=hosts,
        origins=origins,
    )
    serving = server(app)
    stop = asyncio.get_running_loop().add_signal_handler
    stop(signal.SIGTERM, lambda: setattr(serving, "should_exit", True))
    await serving.serve(sockets=[listener(f"127.0.0.1:{port}")])


if __name__ == "__main__":
    toml, port, url = sys.argv[1:]
    gate = Gate.from_file(Path(toml))
    try:
        asyncio.run(main(gate, int(port), url))
    finally:
        gate.close()
