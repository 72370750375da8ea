"""An httpx transport that is not led elsewhere: neither by names nor by redirects.

A URL that was checked may lead to another machine when it is fetched: its name is resolved anew,
or the answer is a redirect. Here the name is resolved once, the address is looked at and connected
to, and every URL but the one that the call was allowed for is decided anew.

Rules enforced here:

1. Only http and https, without user information.
2. A name is resolved once. If one of its addresses is not public (loopback, private, link-local,
   metadata, …) and not allowed by name, nothing is fetched; else one of them is connected to, under
   the name: `Host`, SNI and certificate are the name's.
3. A URL that differs from the approved one is decided before it is fetched; a refusal ends it.
4. Nothing is taken from the environment: no proxy, no certificate file.
5. No connection is used twice: another name with the same address has another certificate.
"""

from __future__ import annotations

import asyncio
import ipaddress
import socket
from collections.abc import Callable, Iterable, Mapping
from typing import TYPE_CHECKING, Final, Protocol

from lictor.model import Tool, ToolCall
from lictor.protect import hosts

try:
    import httpx
except ImportError as error:
    raise ImportError(
        "lictor.helpers.http needs httpx\n  mend: pip install 'lictor[http]'"
    ) from error

if TYPE_CHECKING:
    from lictor.gate import Gate

Resolve = Callable[[str, int], Iterable[str]]
_PORTS: Final = {"http": 80, "https": 443}
_ONCE: Final = httpx.Limits(max_keepalive_connections=0)


class Refused(httpx.TransportError):
    """A URL leads where it must not. Nothing was sent."""


class Decide(Protocol):
    """Decides about a URL that the call was not allowed for."""

    def __call__(self, url: str, /) -> None:
        """Returns if it may be fetched; raises (`Denied`) if not."""
        ...


def redecide(gate: Gate, tool: Tool, arguments: Mapping[str, object], name: str) -> Decide:
    """Decides each further URL as a call of the same tool, with that URL as argument.

    It is decided, asked about, counted and recorded like any call; inside the body of the first
    one it belongs to the same task.

    Args:
        gate: The gate.
        tool: The definition of the tool whose body this is for.
        arguments: Of the call.
        name: The argument that holds the URL.
    """

    def decide(url: str) -> None:
        gate.run(ToolCall(tool, {**arguments, name: url}), lambda args: None)

    return decide


def resolve(host: str, port: int) -> list[str]:
    """The addresses of a name, as the system tells them."""
    found = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)
    return [str(each[4][0]) for each in found]


class _Pin:
    """What both transports share: looks at a request and rewrites it."""

    def __init__(
        self, approved: str, decide: Decide | None, allow: Iterable[str], resolve: Resolve
    ) -> None:
        self._approved = httpx.URL(approved)
        self._decide = decide
        self._allow = tuple(ipaddress.ip_network(each) for each in allow)
        self._resolve = resolve

    def decide(self, url: httpx.URL) -> None:
        """Lets the approved URL pass, and decides every other."""
        if url.scheme not in _PORTS:
            raise Refused(f"{url.scheme}: is no scheme to fetch")
        if url.userinfo or not url.host:
            raise Refused("the URL has user information, or no host")
        if url == self._approved:
            return
        if self._decide is None:
            raise Refused("the call was not allowed for this URL")
        self._decide(str(url))

    def address(self, url: httpx.URL) -> str:
        """The one address to connect to."""
        port = url.port or _PORTS[url.scheme]
        try:
            found = list(self._resolve(_name(url), port))
        except (OSError, UnicodeError) as error:
            raise httpx.ConnectError(f"{url.host}: {error}") from error
        if not found:
            raise httpx.ConnectError(f"{url.host}: has no address")
        for each in found:
            self._look(url.host, each)
        return found[0]

    def _look(self, host: str, text: str) -> None:
        address = hosts.address(text)
        if address is None:
            raise Refused(f"{host}: {text} is no address")
        if any(address in network for network in self._allow if network.version == address.version):
            return
        if not address.is_global or address.is_multicast:
            raise Refused(f"{host} leads to {address}, which is not public")

    @staticmethod
    def rewritten(request: httpx.Request, address: str) -> httpx.Request:
        """The same request to an address, under its name."""
        url = request.url
        host = f"[{address}]" if ":" in address else address
        extensions = {**request.extensions, "sni_hostname": _name(url)}
        headers = httpx.Headers(request.headers)
        headers["Host"] = url.netloc.decode("ascii")
        return httpx.Request(
            request.method,
            url.copy_with(host=host),
            headers=headers,
            stream=request.stream,
            extensions=extensions,
        )


def _name(url: httpx.URL) -> str:
    """The host as it is asked for: IDNA, in ASCII."""
    return url.raw_host.decode("ascii")


class PinnedTransport(httpx.BaseTransport):
    """For one call of a tool: `httpx.Client(transport=PinnedTransport(url, decide=...))`.

    Args:
        approved: The URL that the call was allowed for.
        decide: Decides about every other one, as redirects lead to (`redecide`); without it none
            is fetched.
        allow: Networks that may be reached though they are not public: `["10.1.0.0/16"]`.
        resolve: Resolves names.
        inner: Sends.
    """

    def __init__(
        self,
        approved: str,
        *,
        decide: Decide | None = None,
        allow: Iterable[str] = (),
        resolve: Resolve = resolve,
        inner: httpx.BaseTransport | None = None,
    ) -> None:
        self._pin = _Pin(approved, decide, allow, resolve)
        self._inner = inner or httpx.HTTPTransport(trust_env=False, limits=_ONCE)

    def handle_request(self, request: httpx.Request) -> httpx.Response:
        """Decides, resolves, looks, and sends."""
        self._pin.decide(request.url)
        address = self._pin.address(request.url)
        return self._inner.handle_request(self._pin.rewritten(request, address))

    def close(self) -> None:
        """Closes what it sends through."""
        self._inner.close()


class AsyncPinnedTransport(httpx.AsyncBaseTransport):
    """As `PinnedTransport`, for `httpx.AsyncClient`; deciding and resolving block no loop."""

    def __init__(
        self,
        approved: str,
        *,
        decide: Decide | None = None,
        allow: Iterable[str] = (),
        resolve: Resolve = resolve,
        inner: httpx.AsyncBaseTransport | None = None,
    ) -> None:
        self._pin = _Pin(approved, decide, allow, resolve)
        self._inner = inner or httpx.AsyncHTTPTransport(trust_env=False, limits=_ONCE)

    async def handle_async_request(self, request: httpx.Request) -> httpx.Response:
        """Decides, resolves, looks, and sends."""
        await asyncio.to_thread(self._pin.decide, request.url)
        address = await asyncio.to_thread(self._pin.address, request.url)
        return await self._inner.handle_async_request(self._pin.rewritten(request, address))

    async def aclose(self) -> None:
        """Closes what it sends through."""
        await self._inner.aclose()
