"""Runs the HTTP gateway: its listener, its callers, its servers.

Rules enforced here:

1. It listens at an address of this machine's loopback; beyond it, only where the operator names the
   hosts that mean us.
2. It does not start without callers.
3. Who connects and says nothing, or too much, is let go.
"""

from __future__ import annotations

import asyncio
import contextlib
import socket
from collections.abc import Iterator
from typing import Final

import h11
import uvicorn
from starlette.types import ASGIApp
from uvicorn.protocols.http.h11_impl import H11Protocol

from lictor.errors import ConfigError

IDLE_SECONDS: Final = 75
HEAD_SECONDS: Final = 20.0
STALL_SECONDS: Final = 40.0
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
            http=Connection,
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


class Connection(H11Protocol):
    """A connection that is let go if its client neither sends a request's head nor reads."""

    _head: asyncio.TimerHandle | None = None
    _stalled: asyncio.TimerHandle | None = None

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        """Waits for a head, so long."""
        super().connection_made(transport)
        self._head = self.loop.call_later(HEAD_SECONDS, self._late)

    def data_received(self, data: bytes) -> None:
        """Half a head is none; another one may have so long again."""
        super().data_received(data)
        if self.conn.their_state is not h11.IDLE:
            self._stop()
        elif self._head is None:
            self._head = self.loop.call_later(HEAD_SECONDS, self._late)

    def _late(self) -> None:
        self._head = None
        if self.conn.their_state is h11.IDLE:
            self.transport.abort()

    def _stop(self) -> None:
        if self._head is not None:
            self._head.cancel()
            self._head = None

    def pause_writing(self) -> None:
        """The client reads nothing: it has so long."""
        super().pause_writing()
        self._stalled = self.loop.call_later(STALL_SECONDS, self.transport.abort)

    def resume_writing(self) -> None:
        """It reads again."""
        super().resume_writing()
        if self._stalled is not None:
            self._stalled.cancel()
            self._stalled = None

    def connection_lost(self, exc: Exception | None) -> None:
        """Nobody is waited for any more."""
        super().connection_lost(exc)
        self._stop()
        if self._stalled is not None:
            self._stalled.cancel()


class _Server(uvicorn.Server):
    """A server that leaves signals to whoever runs it."""

    @contextlib.contextmanager
    def capture_signals(self) -> Iterator[None]:
        """Captures none."""
        yield
