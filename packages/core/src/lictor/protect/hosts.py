"""Ways to write the address of one of our own listeners.

Rules enforced here:

1. A URL is read as the most forgiving client reads it: backslashes, missing slashes, user
   information, percent signs, full-width letters and digits, a trailing dot.
2. An address is compared as a number, so that decimal, octal, hexadecimal, short and mapped forms
   are one.
3. What cannot be read as a host and might be one of ours counts as ours.
"""

from __future__ import annotations

import ipaddress
import re
import socket
import unicodedata
from collections.abc import Mapping
from typing import Final
from urllib.parse import unquote

from lictor.canonical import Json

_SCHEME: Final = re.compile(r"(https?|wss?):|([a-z][a-z0-9+.-]*):(?=[/\\])", re.IGNORECASE)
_AUTHORITY: Final = re.compile(r"[/\\]*([^/\\?#]*)")
_PORTS: Final = {"http": 80, "ws": 80, "https": 443, "wss": 443}
_NAMES: Final = frozenset(
    {
        "",
        "localhost",
        "localhost.localdomain",
        "localhost4",
        "localhost6",
        "ip6-localhost",
        "ip6-loopback",
    }
)
_BLANK: Final = re.compile(r"[\x00-\x20\x7f]")
_NAT64: Final = ipaddress.ip_network("64:ff9b::/96")
Address = ipaddress.IPv4Address | ipaddress.IPv6Address


def ours(text: str, ports: frozenset[int]) -> bool:
    """Whether a text, taken for a URL or for `host:port`, leads to one of these local ports."""
    text = _BLANK.sub("", text)
    scheme = _SCHEME.match(text)
    rest = text[scheme.end() :] if scheme else text
    found = _AUTHORITY.match(rest)
    authority = found[1] if found else ""
    authority = _plain(authority).rpartition("@")[2]
    if authority.startswith("[") and "]" not in authority:
        return True
    host, port = _split(authority)
    if port is None:
        port = _PORTS.get(scheme[0][:-1].lower() if scheme else "", -1)
    return port in ports and local(host)


def together(values: Mapping[str, Json], ports: frozenset[int]) -> bool:
    """Whether arguments that stand side by side name a local host and one of these ports."""
    numbers = {str(value) for value in values.values() if isinstance(value, int | str)}
    if not numbers & {str(port) for port in ports}:
        return False
    hosts = (value for value in values.values() if isinstance(value, str))
    return any(text and local(_BLANK.sub("", text)) for text in hosts)


def _plain(text: str) -> str:
    """Without percent signs, wide letters and digits, and the other dots of IDNA."""
    return unicodedata.normalize("NFKC", unquote(text)).replace("\u3002", ".")


def _split(authority: str) -> tuple[str, int | None]:
    if authority.startswith("["):
        host, _, tail = authority[1:].partition("]")
        port = tail[1:] if tail.startswith(":") else ""
    else:
        host, _, port = authority.partition(":")
    digits = port.strip()
    return host, int(digits) if digits.isdecimal() and len(digits) < 8 else None


def local(host: str) -> bool:
    """Whether a host name or address, in any spelling, is this machine's own."""
    name = _plain(host).casefold().strip("[]").rstrip(".")
    if name in _NAMES or name.endswith(".localhost"):
        return True
    if name in (socket.gethostname().casefold(), f"{socket.gethostname().casefold()}.local"):
        return True
    found = address(name)
    return found is not None and (found.is_loopback or found.is_unspecified)


def address(text: str) -> Address | None:
    """The address that a text is, with what other addresses hide of IPv4 taken out of them."""
    try:
        made: Address = ipaddress.ip_address(text.partition("%")[0])
    except ValueError:
        return _loose(text)
    return _inner(made) if isinstance(made, ipaddress.IPv6Address) else made


def _loose(text: str) -> ipaddress.IPv4Address | None:
    """Decimal, octal, hexadecimal and short forms, as the C library takes them."""
    if not re.fullmatch(r"[0-9a-fxA-FX.]+", text):
        return None
    try:
        return ipaddress.IPv4Address(socket.inet_aton(text))
    except (OSError, ValueError):
        return None


def _inner(found: ipaddress.IPv6Address) -> Address:
    if found.ipv4_mapped is not None:
        return found.ipv4_mapped
    if found.sixtofour is not None:
        return found.sixtofour
    if found in _NAT64:
        return ipaddress.IPv4Address(int(found) & 0xFFFFFFFF)
    if 1 < int(found) < 1 << 32:  # an IPv4-compatible one
        return ipaddress.IPv4Address(int(found))
    return found
