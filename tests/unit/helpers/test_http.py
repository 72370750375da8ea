"""Fetching without being led elsewhere: real servers, and names that lie."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import httpx
import pytest

from lictor import Denied, ToolCall
from lictor.helpers.http import AsyncPinnedTransport, PinnedTransport, Refused, redecide
from lictor.testing import gate_for, reviewed, tool_of

PUBLIC = "93.184.215.14"


class Server:
    """A server on a loopback address that answers, or redirects."""

    def __init__(self, address: str) -> None:
        self.seen: list[tuple[str, str]] = []
        self.location = ""
        outer = self

        class Handler(BaseHTTPRequestHandler):
            def do_GET(self) -> None:
                outer.seen.append((self.headers["Host"], self.path))
                if outer.location and self.path == "/go":
                    self.send_response(302)
                    self.send_header("Location", outer.location)
                    self.send_header("Content-Length", "0")
                    self.end_headers()
                    return
                self.send_response(200)
                self.send_header("Content-Length", "2")
                self.end_headers()
                self.wfile.write(b"ok")

            def log_message(self, *args: object) -> None:
                pass

        self.server = ThreadingHTTPServer((address, 0), Handler)
        self.port = self.server.server_address[1]
        self.thread = threading.Thread(target=self.server.serve_forever, args=(0.01,))
        self.thread.start()

    def close(self) -> None:
        self.server.shutdown()
        self.thread.join()
        self.server.server_close()


@pytest.fixture
def serve() -> Iterator[Callable[[str], Server]]:
    servers: list[Server] = []

    def make(address: str) -> Server:
        servers.append(Server(address))
        return servers[-1]

    yield make
    for each in servers:
        each.close()


class Names:
    """A resolver that knows some names, and counts."""

    def __init__(self, **known: str) -> None:
        self.known = {name.replace("_", "."): address for name, address in known.items()}
        self.asked: list[str] = []

    def __call__(self, host: str, port: int) -> list[str]:
        self.asked.append(host)
        return self.known.get(host, host).split()


def fetch(url: str, *, approved: str | None = None, **more: object) -> httpx.Response:
    transport = PinnedTransport(approved or url, **more)  # type: ignore[arg-type]
    with httpx.Client(transport=transport, follow_redirects=True, timeout=20) as client:
        return client.get(url)


OURS = ["127.0.0.2/32"]


def test_the_pinned_address_is_fetched_under_the_name(serve: Callable[[str], Server]) -> None:
    server, names = serve("127.0.0.2"), Names(files_example="127.0.0.2")
    url = f"http://files.example:{server.port}/a?b=c"

    assert fetch(url, allow=OURS, resolve=names).text == "ok"
    assert server.seen == [(f"files.example:{server.port}", "/a?b=c")]
    assert names.asked == ["files.example"]


@pytest.mark.attack("X24")
def test_a_redirect_to_this_machine_is_decided_and_then_refused_by_its_address(
    serve: Callable[[str], Server],
) -> None:
    server, inner = serve("127.0.0.2"), serve("127.0.0.1")
    server.location = f"http://127.0.0.1:{inner.port}/admin"
    url, decided = f"http://files.example:{server.port}/go", list[str]()
    names = Names(files_example="127.0.0.2")

    with pytest.raises(Refused, match="not public"):
        fetch(url, allow=OURS, resolve=names, decide=decided.append)

    assert decided == [server.location]
    assert inner.seen == []


@pytest.mark.attack("X24")
def test_a_redirect_that_nobody_decides_about_is_not_followed(
    serve: Callable[[str], Server],
) -> None:
    server, other = serve("127.0.0.2"), serve("127.0.0.2")
    server.location = f"http://other.example:{other.port}/"
    names = Names(files_example="127.0.0.2", other_example="127.0.0.2")

    with pytest.raises(Refused, match="not allowed for this URL"):
        fetch(f"http://files.example:{server.port}/go", allow=OURS, resolve=names)
    assert other.seen == []


@pytest.mark.attack("X24")
def test_a_redirect_is_decided_by_the_gate_like_a_call_of_its_own(
    serve: Callable[[str], Server], tmp_path: Path
) -> None:
    server, other = serve("127.0.0.2"), serve("127.0.0.2")
    tool = tool_of("fetch", {"url": {"type": "string"}}, required=["url"])
    first = f"http://files.example:{server.port}/go"
    names = Names(files_example="127.0.0.2", good_example="127.0.0.2", evil_example="127.0.0.2")
    known = reviewed(tool, "send", target=("url",), formats={"url": "uri"})
    allowed = [first, f"http://good.example:{other.port}/"]
    limits = {"fetch": {"url": {"one_of": allowed}}}

    with gate_for(tmp_path, [known]) as gate:

        def body(args: dict[str, object]) -> str:
            url = str(args["url"])
            decide = redecide(gate, tool, args, "url")
            return fetch(url, allow=OURS, resolve=names, decide=decide).text

        with gate.task(
            agent="bot", on_behalf_of="alice", tools=["fetch"], limits=limits, session="s"
        ) as task:
            server.location = allowed[1]
            assert gate.run(ToolCall(tool, {"url": first}), body) == "ok"
            assert task.used[0] == 2

            server.location = f"http://evil.example:{other.port}/"
            with pytest.raises(Denied) as caught:
                gate.run(ToolCall(tool, {"url": first}, "again"), body)
            assert caught.value.decision.reason == "grant_limit"
    assert [host.partition(":")[0] for host, _ in other.seen] == ["good.example"]


@pytest.mark.attack("X24")
@pytest.mark.parametrize(
    "host",
    ["127.0.0.1", "2130706433", "0x7f000001", "0177.0.0.1", "127.1", "[::1]", "[::ffff:127.0.0.1]",
     "[::ffff:7f00:1]", "[64:ff9b::7f00:1]", "0.0.0.0", "[::]", "169.254.169.254", "10.0.0.1",
     "192.168.1.1", "172.16.0.1", "100.64.0.1", "[fe80::1]", "[fd00::1]", "224.0.0.1", "localhost",
     "127.0.0.1."],
)  # fmt: skip
def test_an_address_that_is_not_public_is_refused_in_every_spelling(host: str) -> None:
    sent: list[httpx.Request] = []
    inner = httpx.MockTransport(lambda request: sent.append(request) or httpx.Response(200))

    with pytest.raises((Refused, httpx.InvalidURL, httpx.ConnectError)):
        fetch(f"http://{host}/latest/meta-data", inner=inner)
    assert sent == []


@pytest.mark.attack("X24")
def test_a_name_is_resolved_once_whatever_it_answers_later(
    serve: Callable[[str], Server],
) -> None:
    """Rebinding: good for the check, this machine for the connection."""
    server, inner = serve("127.0.0.2"), serve("127.0.0.1")
    answers = iter(["127.0.0.2", "127.0.0.1"])

    def rebind(host: str, port: int) -> list[str]:
        return [next(answers)]

    url = f"http://files.example:{server.port}/"
    assert fetch(url, allow=OURS, resolve=rebind).text == "ok"
    with pytest.raises(Refused):
        fetch(f"http://files.example:{inner.port}/", allow=OURS, resolve=rebind)
    assert (len(server.seen), inner.seen) == (1, [])


@pytest.mark.attack("X24")
def test_one_address_among_several_is_enough_to_refuse() -> None:
    names = Names(mixed_example=f"{PUBLIC} 127.0.0.1")
    inner = httpx.MockTransport(lambda request: httpx.Response(200))
    with pytest.raises(Refused):
        fetch("http://mixed.example/", resolve=names, inner=inner)


@pytest.mark.attack("X24")
@pytest.mark.parametrize(
    "url",
    ["http://user:pass@files.example/", "http://files.example@127.0.0.1/", "ftp://x.example/"],
)
def test_user_information_and_other_schemes_are_refused(url: str) -> None:
    inner = httpx.MockTransport(lambda request: httpx.Response(200))
    transport = PinnedTransport(url, inner=inner, resolve=Names(files_example=PUBLIC))
    with pytest.raises(Refused):
        transport.handle_request(httpx.Request("GET", url))


def test_certificate_and_host_are_the_names_and_a_given_host_counts_for_nothing() -> None:
    sent: list[httpx.Request] = []
    inner = httpx.MockTransport(lambda request: sent.append(request) or httpx.Response(200))
    names = Names(**{"xn--bcher-kva_example": PUBLIC})
    url = "https://bücher.example/x"
    transport = PinnedTransport(url, inner=inner, resolve=names)
    with httpx.Client(transport=transport) as client:
        client.get(url, headers={"Host": "internal.example"})

    (request,) = sent
    assert str(request.url) == f"https://{PUBLIC}/x"
    assert request.headers["Host"] == "xn--bcher-kva.example"
    assert request.extensions["sni_hostname"] == "xn--bcher-kva.example"


def test_an_ipv6_address_is_written_in_brackets() -> None:
    sent: list[httpx.Request] = []
    inner = httpx.MockTransport(lambda request: sent.append(request) or httpx.Response(200))
    fetch("http://six.example/", inner=inner, resolve=Names(six_example="2606:4700::6810:84e5"))
    assert sent[0].url.netloc == b"[2606:4700::6810:84e5]"


@pytest.mark.attack("X71")
def test_proxies_and_certificate_files_of_the_environment_count_for_nothing(
    serve: Callable[[str], Server], monkeypatch: pytest.MonkeyPatch
) -> None:
    server, proxy = serve("127.0.0.2"), serve("127.0.0.1")
    monkeypatch.setenv("HTTP_PROXY", f"http://127.0.0.1:{proxy.port}")
    monkeypatch.setenv("ALL_PROXY", f"http://127.0.0.1:{proxy.port}")
    monkeypatch.setenv("SSL_CERT_FILE", "/nowhere/evil.pem")
    names = Names(files_example="127.0.0.2")

    assert fetch(f"http://files.example:{server.port}/", allow=OURS, resolve=names).text == "ok"
    assert proxy.seen == []


def test_a_name_without_an_address_is_a_connection_error() -> None:
    def unknown(host: str, port: int) -> list[str]:
        raise OSError("no such name")

    with pytest.raises(httpx.ConnectError, match="no such name"):
        fetch("http://none.example/", resolve=unknown)
    with pytest.raises(httpx.ConnectError, match="no address"):
        fetch("http://none.example/", resolve=lambda host, port: [])
    with pytest.raises(Refused, match="no address"):
        fetch("http://none.example/", resolve=lambda host, port: ["gibberish"])


@pytest.mark.asyncio
async def test_the_asynchronous_one_does_the_same(serve: Callable[[str], Server]) -> None:
    server, inner = serve("127.0.0.2"), serve("127.0.0.1")
    server.location = f"http://127.0.0.1:{inner.port}/"
    names = Names(files_example="127.0.0.2")
    url, decided = f"http://files.example:{server.port}/go", list[str]()
    transport = AsyncPinnedTransport(url, allow=OURS, resolve=names, decide=decided.append)
    async with httpx.AsyncClient(transport=transport, follow_redirects=True) as client:
        with pytest.raises(Refused):
            await client.get(url)

    assert decided == [server.location]
    assert (len(server.seen), inner.seen) == (1, [])
