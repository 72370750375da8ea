"""Canonical forms of paths, URLs and mail addresses, and text made visible.

Rules enforced here:

1. One thing has one spelling: a text that is not canonical is refused, never rewritten, so that
   what was checked is what runs.
2. A path is judged as POSIX text: no `.`, `..`, empty segment, backslash, drive, NUL, home sign,
   encoded or look-alike dot or slash. Symbolic links are beyond a text (`docs/limits.md`).
3. A URL is http or https, without user-info or fragment; its host is lower-case ASCII, a dotted
   IPv4 or a compressed IPv6 address; its path hides no dot and no slash.
4. A mail address is exactly one address, without a name beside it.
5. `visible` leaves no character that is invisible, moves the cursor or changes the reading order.
"""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Callable
from dataclasses import dataclass
from ipaddress import AddressValueError, IPv4Address, IPv6Address
from typing import Final
from urllib.parse import quote

MAX_TEXT: Final = 8_192
"""Longest path, URL or address, in characters."""


class NotCanonical(ValueError):
    """A text is not written in its canonical form.

    Attributes:
        problem: What is wrong, in words that quote nothing of the text.
        canonical: How to write it, or `None` where guessing would be dangerous.
    """

    def __init__(self, problem: str, canonical: str | None = None) -> None:
        self.problem = problem
        self.canonical = canonical
        super().__init__(problem)


@dataclass(frozen=True, slots=True)
class Uri:
    """A canonical http or https URL.

    Attributes:
        scheme: `http` or `https`.
        host: Lower-case name, IPv4, or IPv6 without brackets.
        port: `None` for the scheme's own.
        path: Starts with a slash, also where the text has no path.
        query: Without the question mark; `None` where there is none.
        text: As written.
    """

    scheme: str
    host: str
    port: int | None
    path: str
    query: str | None
    text: str


@dataclass(frozen=True, slots=True)
class Email:
    """One mail address. The local part keeps its case: only the receiving host may fold it."""

    local: str
    domain: str
    text: str


_HIDDEN: Final = re.compile(r"%(?:25)*(?:2e|2f|5c|00)", re.IGNORECASE)
_SCHEME_OR_DRIVE: Final = re.compile(r"[A-Za-z]:|[A-Za-z][A-Za-z0-9+.-]*:/")
_CONTROL: Final = re.compile(r"[\x00-\x1f\x7f-\x9f]")


def path(text: str) -> str:
    """Checks a path, absolute or relative.

    Raises:
        NotCanonical: It is not in its one spelling.
    """
    if not text or len(text) > MAX_TEXT:
        raise NotCanonical("is empty or too long for a path")
    if _CONTROL.search(text):
        raise NotCanonical("holds a control character")
    if "\\" in text:
        raise NotCanonical("holds a backslash")
    if _HIDDEN.search(text):
        raise NotCanonical("hides a dot, slash or NUL in percent-encoding")
    if _SCHEME_OR_DRIVE.match(text):
        raise NotCanonical("starts with a drive letter or a scheme")
    if text[0] == "~":
        raise NotCanonical("starts with a home sign; write the directory out")
    if not text.isascii():
        _look_alikes(text)
    plain = _resolved(text)
    if plain != text:
        raise NotCanonical("is not a plain path (dots, empty segments or a trailing slash)", plain)
    return text


def _look_alikes(text: str) -> None:
    composed = unicodedata.normalize("NFC", text)
    if composed != text:
        raise NotCanonical("is not in Unicode form NFC", _resolved(composed))
    for segment in text.split("/"):
        folded = unicodedata.normalize("NFKC", segment)
        if folded != segment and (folded in (".", "..") or "/" in folded or "\\" in folded):
            raise NotCanonical("holds a character that other software reads as a dot or slash")


def _resolved(text: str) -> str | None:
    """The path without dots and empty segments; `None` if it climbs above where it starts."""
    kept: list[str] = []
    for segment in text.split("/"):
        if segment == "..":
            if not kept:
                return None
            kept.pop()
        elif segment not in ("", "."):
            kept.append(segment)
    joined = "/".join(kept)
    return "/" + joined if text[0] == "/" else joined or None


_PARTS: Final = re.compile(r"([A-Za-z][A-Za-z0-9+.-]*)://([^/?#]*)([^?#]*)(?:\?([^#]*))?(#.*)?")
_AUTHORITY: Final = re.compile(r"(\[[0-9A-Fa-f:.]+\]|[^:\[\]]+)(?::([0-9]*))?")
_UNSAFE: Final = re.compile(r"[\x00-\x20\x7f-\xa0\\]|\s")
_DEFAULT_PORTS: Final = {"http": 80, "https": 443}
_PATH_CHARS: Final = "/:@!$&'()*+,;="
_QUERY_CHARS: Final = _PATH_CHARS + "?"


def uri(text: str) -> Uri:
    """Checks an http or https URL.

    A URL without a path (`https://acme.example`) counts as written with `/`: every client sends
    the same request for both.

    Raises:
        NotCanonical: It is not in its one spelling.
    """
    if not text or len(text) > MAX_TEXT:
        raise NotCanonical("is empty or too long for a URL")
    if _UNSAFE.search(text):
        raise NotCanonical("holds white space, a control character or a backslash")
    parts = _PARTS.fullmatch(text)
    if parts is None:
        raise NotCanonical("is not an absolute URL")
    scheme = parts[1].lower()
    if scheme not in _DEFAULT_PORTS:
        raise NotCanonical("is neither http nor https")
    host, shown, port = _authority(parts[2], scheme)
    spelled = _url_path(parts[3]) if parts[3] else ""
    query = _encoded(parts[4], _QUERY_CHARS) if parts[4] else None
    root = "/" if query is not None and not spelled else spelled
    canonical = f"{scheme}://{shown}" + (f":{port}" if port else "") + root
    canonical += "" if query is None else f"?{query}"
    if canonical != text:
        raise NotCanonical("is not written in its canonical form", canonical)
    return Uri(scheme, host, port, spelled or "/", query, text)


def _authority(text: str, scheme: str) -> tuple[str, str, int | None]:
    """Host, host as a URL shows it, and port."""
    if "@" in text:
        raise NotCanonical("names a user before the host")
    match = _AUTHORITY.fullmatch(text)
    if match is None:
        raise NotCanonical("has no valid host")
    port = int(match[2]) if match[2] and len(match[2]) <= 5 else None
    if match[2] and (port is None or not 0 < port <= 65_535):
        raise NotCanonical("has no valid port")
    if match[1][0] == "[":
        host = _ipv6(match[1][1:-1])
        shown = f"[{host}]"
    else:
        host = shown = _host(match[1])
    return host, shown, None if port == _DEFAULT_PORTS[scheme] else port


def _ipv6(text: str) -> str:
    try:
        address = IPv6Address(text)
    except AddressValueError:
        raise NotCanonical("has no valid IPv6 address") from None
    if address.ipv4_mapped is not None:
        raise NotCanonical("writes an IPv4 address as IPv6")
    return address.compressed


def _host(text: str) -> str:
    """A host in its one spelling, whatever spelling it came in."""
    last = text.rstrip(".").rpartition(".")[2].lower()
    if last.isdecimal() or re.fullmatch(r"0x[0-9a-f]*", last):
        return _ipv4(text)
    return _domain(text)


def _ipv4(text: str) -> str:
    try:
        return str(IPv4Address(text))
    except AddressValueError:
        raise NotCanonical("has a number for a host that is not a dotted IPv4 address") from None


_LABEL: Final = re.compile(r"[a-z0-9](?:[a-z0-9_-]{0,61}[a-z0-9])?")


def _domain(text: str) -> str:
    name = text.lower().removesuffix(".")
    if not name.isascii():
        name = _to_ascii(name)
    labels = name.split(".")
    if len(name) > 253 or not all(_LABEL.fullmatch(label) for label in labels):
        raise NotCanonical("has no valid host name")
    if any(label[2:4] == "--" and not _is_encoded(label) for label in labels):
        raise NotCanonical("has a host name that is not valid IDNA")
    return name


def _to_ascii(name: str) -> str:
    """IDNA form of a name, refused where the two versions of IDNA differ on it."""
    try:
        encoded = name.encode("idna").decode()
        if encoded.encode().decode("idna") == unicodedata.normalize("NFC", name):
            return encoded
    except UnicodeError:
        pass
    raise NotCanonical("has a host name that is not valid IDNA")


def _is_encoded(label: str) -> bool:
    try:
        name = label.encode().decode("idna")
        return not name.isascii() and name.encode("idna").decode() == label
    except UnicodeError:
        return False


def _url_path(text: str) -> str:
    if _HIDDEN.search(text):
        raise NotCanonical("hides a dot, slash or NUL in the percent-encoding of its path")
    encoded = _encoded(text, _PATH_CHARS)
    segments = encoded.split("/")
    if any(re.match(r"\.{1,2};", segment) for segment in segments):
        raise NotCanonical("has a dot segment with a parameter")
    plain = _resolved(encoded)
    if plain is None:
        raise NotCanonical("climbs above its root")
    slash = segments[-1] in ("", ".", "..") and plain != "/"
    return plain + "/" if slash else plain


_ESCAPE: Final = re.compile(r"%([0-9A-Fa-f]{2})?")
_UNRESERVED: Final = re.compile(r"[A-Za-z0-9._~-]")


def _encoded(text: str, allowed: str) -> str:
    """Percent-encoding in its one spelling (RFC 3986 §6.2.2)."""

    def spell(match: re.Match[str]) -> str:
        if match[1] is None:
            raise NotCanonical("has a percent sign that encodes nothing")
        character = chr(int(match[1], 16))
        return character if _UNRESERVED.fullmatch(character) else match[0].upper()

    return quote(_ESCAPE.sub(spell, text), safe=allowed + "%~")


_LOCAL: Final = re.compile(r"[A-Za-z0-9!#$%&'*+/=?^_`{|}~-]+(?:\.[A-Za-z0-9!#$%&'*+/=?^_`{|}~-]+)*")


def email(text: str) -> Email:
    """Checks one mail address.

    Raises:
        NotCanonical: It is not exactly one address in its one spelling.
    """
    local, at, domain = text.rpartition("@")
    if not at or len(text) > 320 or len(local) > 64 or not _LOCAL.fullmatch(local):
        raise NotCanonical("is not exactly one plain mail address")
    if _UNSAFE.search(domain):
        raise NotCanonical("holds white space or a control character")
    last = domain.rpartition(".")[2]
    if not domain or last.isdecimal():
        raise NotCanonical("has no valid domain")
    canonical = f"{local}@{_domain(domain)}"
    if canonical != text:
        raise NotCanonical("has a domain that is not in its canonical form", canonical)
    return Email(local, domain, text)


FORMS: Final[dict[str, Callable[[str], str | Uri | Email]]] = {
    "path": path,
    "uri": uri,
    "email": email,
}
"""The names that `formats` of a catalog entry may use."""

_BLANKS: Final = frozenset("\u034f\u115f\u1160\u17b4\u17b5\u2800\u3164\uffa0")
_INVISIBLE: Final = frozenset({"Cc", "Cf", "Cs", "Co", "Cn", "Zl", "Zp"})
_SHORT: Final = {"\\": "\\\\", "\n": "\\n", "\r": "\\r", "\t": "\\t"}


def visible(text: str) -> str:
    r"""Text as one line in which every character can be seen.

    Backslashes are doubled, so that an escape of ours cannot be written by the text itself.
    """
    if text.isascii() and text.isprintable() and "\\" not in text:
        return text
    return "".join(map(_shown, text))


def _shown(character: str) -> str:
    if character in _SHORT:
        return _SHORT[character]
    if character == " ":
        return character
    category = unicodedata.category(character)
    selector = "\ufe00" <= character <= "\ufe0f" or "\U000e0100" <= character <= "\U000e01ef"
    if category in _INVISIBLE or category == "Zs" or character in _BLANKS or selector:
        return f"\\u{{{ord(character):x}}}"
    return character
