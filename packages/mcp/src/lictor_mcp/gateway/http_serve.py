"""Runs the HTTP gateway: its listener, its callers, its servers.

Rules enforced here:

1. It listens at an address of this machine's loopback; beyond it, only where the operator names the
   hosts that mean us.
2. It does not start without callers.
3. Who connects and says nothing, or too much, is let go.
"""

from __future__ import annotations

import contextlib
import socket
from collections.abc import Iterator
from typing import Final

import uvicorn
from starlette.types import ASGIApp

from lictor.errors import ConfigError

IDLE_SECONDS: Final = 75
END_SECONDS: Final = 5
MAX_HEAD: Final = 64 * 1024
MAX_CONNECTIONS: Final = 2048
BACKLOG: Final = 1024
_LOCAL: Final = frozenset({"127.0.0.1", "::1", "localhost"})


def listener(address: str) -> socket.socket:
    """Listens.

    Args:
        address: `127.0.0.1:8700`, or `[::1]:8700`; port 0 takes any.

    Raises:
        ConfigError: It is no address of this machine's loopback, or is taken.
    """
    where = f"--listen {address}"
    host, colon, port = address.rpartition(":")
    host = host.removeprefix("[").removesuffix("]")
    if not colon or not port.isdigit() or int(port) > 65535:
        raise ConfigError(where, "is no host and port", "for example: --listen 127.0.0.1:8700")
    if host not in _LOCAL:
        raise ConfigError(
            where,
            "is not the loopback: tokens would cross the network in the clear",
            "listen at 127.0.0.1, behind a proxy of yours that speaks TLS",
        )
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    # asyncio sends at once (TCP_NODELAY) only on sockets that name the protocol.
    made = socket.socket(family, socket.SOCK_STREAM, socket.IPPROTO_TCP)
    try:
        made.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        made.bind((host, int(port)))
        made.listen(BACKLOG)
    except OSError as problem:
        made.close()
        raise ConfigError(
            where, f"cannot be listened at: {problem.strerror}", "another port"
        ) from None
    made.setblocking(False)
    return made


def server(app: ASGIApp) -> uvicorn.Server:
    """A server for the application; `serve(sockets=[...])` runs it."""
    return _Server(
        uvicorn.Config(
            app,
            interface="asgi3",
            lifespan="on",
            log_config=None,
            access_log=False,
            server_header=False,
            proxy_headers=False,
            ws="none",
            h11_max_incomplete_event_size=MAX_HEAD,
            limit_concurrency=MAX_CONNECTIONS,
            timeout_keep_alive=IDLE_SECONDS,
            timeout_graceful_shutdown=END_SECONDS,
        )
    )


class _Server(uvicorn.Server):
    """A server that leaves signals to whoever runs it."""

    @contextlib.contextmanager
    def capture_signals(self) -> Iterator[None]:
        """Captures none."""
        yield
