"""Changed files under a running gate: what is narrower is taken, and nothing else is."""

from __future__ import annotations

import os
import re
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from lictor import ConfigError, Denied, Gate, ToolCall
from lictor.assemble import Project, read
from lictor.catalog import lock
from lictor.limits import Range, admits, parse
from lictor.reload import _granted, wider
from lictor.template import Template
from lictor.testing import UnsafeApprovals, tool_of

PAY = tool_of(
    "pay", {"to": {"type": "string"}, "amount": {"type": "number"}}, required=["to", "amount"]
)
LOOK = tool_of("look", {"n": {"type": "integer"}})
NOTE = tool_of("note", {"text": {"type": "string"}})
TOML = """\
labels = ["mine"]

[agents.bot]
owner = "alice"
roles = ["clerk", "helper"]
[agents.aide]
owner = "alice"
[agents.spare]
owner = "alice"
roles = ["helper", "clerk"]
[users.alice]
roles = ["boss"]
[users.bob]
[users.dora]
roles = ["boss", "guest"]
[users."*"]
roles = ["guest"]

[tasks.t]
tools = ["pay", "look"]
calls = 10
spend = "100"
expires_in = 600
limits.pay.to = { one_of = ["bob", "eve"] }
limits.pay.amount = { min = "0", max = "500" }
[tasks.free]
tools = ["note"]
[tasks.auto]
tools = ["look"]
autonomous = true
[tasks.reads]

[[rule]]
tool = "local/note"
allow = { text = { one_of = ["a", "b"] } }
[[rule]]
tool = "local/look"
who = "role:boss"
"""
PERMIT = '@id("p") permit (principal in Lictor::Role::"local/clerk", action, resource);\n'
FORBID = '@id("n") forbid (principal, action, resource) when { context.session.calls > 9 };\n'
FREE = '[tasks.free]\ntools = ["note"]'
ANYBODY = '@id("x") permit (principal, action, resource);\n'
WRITE = 'impact = ["write"]'
CEDAR = f"""\
{PERMIT}\
@id("f") forbid (principal in Lictor::Role::"local/helper", action, resource)
when {{ context.session.calls > 5 }};
"""


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    home = tmp_path / "app"
    (home / "policies").mkdir(parents=True)
    (home / "lictor.toml").write_text(TOML)
    (home / "policies" / "own.cedar").write_text(CEDAR)
    lock(home / "catalog.toml", home / "catalog.lock", {t.key: t for t in (PAY, LOOK, NOTE)})
    text = (home / "catalog.toml").read_text()
    for name, more in {
        "look": 'impact = ["read"]',
        "note": 'impact = ["write"]',
        "pay": 'impact = ["transfer"]\ntarget = ["to"]\namount = "amount"',
    }.items():
        text = re.sub(rf'(name = "{name}"\n(?:.*\n)*?)impact = \[\]', rf"\1{more}", text)
    (home / "catalog.toml").write_text(text)
    return home


@pytest.fixture
def edit(folder: Path) -> Callable[..., list[str]]:
    """Edits one file, and says in what the project is wider than before."""
    old = read(folder / "lictor.toml")

    def change(file: str, find: str, put: str) -> list[str]:
        path = folder / file
        text = path.read_text()
        assert find in text
        path.write_text(text.replace(find, put, 1))
        return wider(old, read(folder / "lictor.toml"))

    return change


RULE_1 = '[[rule]]\ntool = "local/note"\nallow = { text = { one_of = ["a", "b"] } }\n'


@pytest.mark.parametrize(
    ("file", "find", "put"),
    [
        ("lictor.toml", "", "# said differently\n"),
        ("lictor.toml", "", 'profile = "production"\nrequire_verified = false\n'),
        ("lictor.toml", "", "require_verified = true\n"),
        ("lictor.toml", '["boss", "guest"]', '["boss"]'),
        ("lictor.toml", '[users."*"]\nroles = ["guest"]\n', ""),
        ("lictor.toml", '[users."*"]\nroles = ["guest"]', '[users."*"]'),
        ("lictor.toml", '[agents.aide]\nowner = "alice"\n', ""),
        ("lictor.toml", 'roles = ["clerk", "helper"]', 'roles = ["helper"]'),
        ("lictor.toml", "calls = 10", "calls = 9"),
        ("lictor.toml", 'spend = "100"', 'spend = "99.5"'),
        ("lictor.toml", "expires_in = 600", "expires_in = 60"),
        ("lictor.toml", '["bob", "eve"]', '["bob"]'),
        ("lictor.toml", 'max = "500"', 'max = "400"'),
        ("lictor.toml", 'limits.pay.to = { one_of = ["bob", "eve"] }', 'limits.pay.to = "eve"'),
        ("lictor.toml", "autonomous = true\n", ""),
        ("lictor.toml", '[tasks.free]\ntools = ["note"]\n', ""),
        ("lictor.toml", '["a", "b"]', '["a"]'),
        ("policies/own.cedar", "@id", FORBID + "@id"),
        ("policies/own.cedar", PERMIT, ""),
        ("policies/own.cedar", '@id("p")', '@id("q") @reason("Clerks may.")'),
        ("catalog.toml", 'name = "note"', 'name = "note"\nblocked = true'),
        ("catalog.toml", 'name = "note"', 'name = "note"\nreviewer = "ops"'),
    ],
)  # fmt: skip
def test_what_is_narrower(edit: Callable[..., list[str]], file: str, find: str, put: str) -> None:
    assert edit(file, find, put) == []


@pytest.mark.parametrize(
    ("file", "find", "put", "word"),
    [
        ("lictor.toml", '["mine"]', '["mine", "more"]', "labels"),
        ("lictor.toml", "", "policy_timeout = 3\n", "policy_timeout"),
        ("lictor.toml", "", 'state = "other"\n', "state"),
        ("lictor.toml", "", 'mode = "observe"\n', "mode"),
        ("lictor.toml", "", 'guardrails = ""\n', "forbid starter:"),
        ("lictor.toml", "[users.bob]", "[users.bob]\nroles = ['boss']", "users.bob gains"),
        ("lictor.toml", "[users.bob]\n", "", "users.bob gains the role guest"),  # as everybody
        ("lictor.toml", "[users.bob]", "[users.bob]\n[users.carl]\nroles = ['boss']", "carl"),
        ("lictor.toml", "[agents.aide]", "[agents.new]\nowner = 'bob'\n[agents.aide]", "new"),
        ("lictor.toml", "[agents.aide]\nowner = \"alice\"", "[agents.aide]\nowner='bob'", "owner"),
        ("lictor.toml", "[agents.aide]", "[agents.aide]\nroles = ['clerk']", "clerk"),
        ("lictor.toml", '["clerk", "helper"]', '["clerk"]', "loses the role helper, which f"),
        ("lictor.toml", 'roles = ["boss"]', 'roles = []', "loses the role boss"),
        ("lictor.toml", "calls = 10", "calls = 11", "max_calls"),
        ("lictor.toml", "calls = 10\n", "", "max_calls"),
        ("lictor.toml", 'spend = "100"', 'spend = "100.0001"', "max_spend"),
        ("lictor.toml", "expires_in = 600", "expires_in = 601", "time"),
        ("lictor.toml", 'max = "500"', 'max = "501"', "amount"),
        ("lictor.toml", '["bob", "eve"]', '["bob", "mallory"]', "argument to"),
        ("lictor.toml", 'limits.pay.to = { one_of = ["bob", "eve"] }\n', "", "argument to"),
        ("lictor.toml", 'tools = ["pay", "look"]', 'tools = ["pay", "look", "note"]', "note"),
        ("lictor.toml", "[tasks.reads]", '[tasks.reads]\ntools = ["note"]', "effects"),
        ("lictor.toml", "[tasks.reads]", "[tasks.reads]\nautonomous = true", "autonomous"),
        ("lictor.toml", "[tasks.reads]", "[tasks.reads]\n[tasks.other]", "tasks.other is new"),
        ("lictor.toml", FREE, FREE + '\nlimits.note.text = "a"', "nobody is asked"),
        ("lictor.toml", '["a", "b"]', '["a", "c"]', "allows more of text"),
        ("lictor.toml", '{ text = { one_of = ["a", "b"] } }', "{}", "allows more of text"),
        ("lictor.toml", RULE_1, "", "[[rule]]"),
        ("lictor.toml", RULE_1, RULE_1 + 'otherwise = "confirm:user"\n', "[[rule]]"),
        ("lictor.toml", RULE_1, RULE_1 + '[[rule]]\ntool = "local/pay"\n', "[[rule]]"),
        ("policies/own.cedar", "> 5", "> 6", "forbid f"),
        ("policies/own.cedar", '"local/clerk"', '"local/helper"', "permit p"),
        ("policies/own.cedar", "@id", ANYBODY + "@id", "permit x"),
        ("catalog.toml", 'impact = ["transfer"]', 'impact = ["write"]', "local/pay"),
        ("catalog.toml", 'target = ["to"]\n', "", "local/pay"),
        ("catalog.toml", WRITE, WRITE + '\nrecordable = ["text"]', "local/note"),
        ("catalog.toml", WRITE, WRITE + '\nroots = ["/srv/x"]', "local/note"),
    ],
)  # fmt: skip
def test_what_is_wider_is_named(
    edit: Callable[..., list[str]], file: str, find: str, put: str, word: str
) -> None:
    found = edit(file, find, put)
    assert any(word in each for each in found), found


def test_a_tool_that_comes_or_is_unblocked_is_wider_and_one_that_goes_is_not(folder: Path) -> None:
    whole = read(folder / "lictor.toml")
    toml = folder / "catalog.toml"
    text = toml.read_text()
    (folder / "lictor.toml").write_text(TOML.replace(RULE_1, ""))
    with_note = read(folder / "lictor.toml")
    toml.write_text(text.replace('impact = ["write"]', "impact = []"))
    without = read(folder / "lictor.toml")
    toml.write_text(text.replace('impact = ["write"]', 'impact = ["write"]\nblocked = true'))
    blocked = read(folder / "lictor.toml")

    assert wider(with_note, without) == []
    assert wider(without, with_note) == ["local/note is new"]
    assert wider(blocked, with_note) == ["local/note is blocked no longer"]
    assert wider(whole, whole) == []


ends = st.decimals("-100", "100", places=2)


@given(st.tuples(ends, ends).map(sorted), st.tuples(ends, ends).map(sorted), ends)
@settings(max_examples=200, deadline=None)
def test_a_template_that_is_not_wider_lets_nothing_more_through(
    old: list[object], new: list[object], value: object
) -> None:
    def template(ends: list[object]) -> Template:
        limit = parse({"min": str(ends[0]), "max": str(ends[1])}, "test")
        return Template(frozenset({PAY.key}), {PAY.key: {"amount": limit, "to": parse("bob", "")}})

    from lictor.grant import wider as wider_grant

    before, now = template(old), template(new)
    if wider_grant(_granted(now), _granted(before)):
        return
    number = float(str(value))
    inside = [each.limits[PAY.key]["amount"] for each in (now, before)]
    assert all(isinstance(each, Range) for each in inside)
    assert not admits(inside[0], number) or admits(inside[1], number)


# -- under a running gate -------------------------------------------------------------------------


class Running:
    """A gate over the folder, whose watchman looks when it is told to."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.gate = Gate.from_file(folder / "lictor.toml", approvals=UnsafeApprovals())

    def look(self) -> None:
        assert self.gate._watchman is not None
        self.gate._watchman.tick()

    def edit(self, file: str, find: str, put: str) -> None:
        path = self.folder / file
        path.write_text(path.read_text().replace(find, put, 1))

    def try_(self, call: ToolCall, template: str = "t") -> str:
        with self.gate.task(template, agent="bot", on_behalf_of="alice", session="s"):
            return self.inside(call)

    def inside(self, call: ToolCall) -> str:
        try:
            self.gate.run(call, lambda args: args)
        except Denied as denied:
            return denied.decision.reason
        return "permit"


@pytest.fixture
def running(folder: Path) -> Iterator[Running]:
    made = Running(folder)
    yield made
    made.gate.close()


def pay(to: str = "eve") -> ToolCall:
    return ToolCall(PAY, {"to": to, "amount": 5})


def test_a_narrower_file_is_taken_at_once(running: Running) -> None:
    assert running.try_(pay()) == "permit"
    running.edit("lictor.toml", '["bob", "eve"]', '["bob"]')
    running.gate.reload()

    assert running.try_(pay()) == "grant_limit"
    assert running.try_(pay("bob")) == "permit"


def test_a_running_task_keeps_its_grant_and_meets_the_new_policies(running: Running) -> None:
    with running.gate.task("t", agent="bot", on_behalf_of="alice", session="s"):
        running.edit("lictor.toml", '["bob", "eve"]', '["bob"]')
        running.gate.reload()
        assert running.inside(pay()) == "permit"
        forbid = '@id("stop") forbid (principal, action, resource);\n@id'
        running.edit("policies/own.cedar", "@id", forbid)
        running.gate.reload()
        assert running.inside(pay()) == "policy_denied"


def test_a_wider_file_is_refused_and_nothing_of_it_taken(running: Running) -> None:
    running.edit("lictor.toml", '["bob", "eve"]', '["bob"]')
    running.edit("lictor.toml", "calls = 10", "calls = 11")
    with pytest.raises(ConfigError) as caught:
        running.gate.reload()

    assert "max_calls" in caught.value.problem
    assert "restart the program" in caught.value.mend
    assert running.gate.catalog.known(PAY.key) is not None
    assert running.gate._opener.templates["t"].calls == 10
    assert "eve" in str(running.gate._opener.templates["t"].limits)


def test_a_file_that_does_not_load_is_refused(running: Running) -> None:
    running.edit("lictor.toml", "[tasks.t]", "[tasks.t")
    with pytest.raises(ConfigError, match="TOML"):
        running.gate.reload()
    assert running.try_(pay()) == "config_changed"


def test_taking_away_principals_and_tools_holds_at_once(running: Running) -> None:
    running.edit("lictor.toml", '[agents.aide]\nowner = "alice"\n', "")
    running.edit("catalog.toml", 'name = "pay"', 'name = "pay"\nblocked = true')
    with running.gate.task("t", agent="aide", on_behalf_of="alice", session="s"):
        running.gate.reload()
        assert running.inside(ToolCall(LOOK, {"n": 1})) == "principal_unknown"
    assert running.try_(pay()) == "tool_blocked"


def test_observing_can_be_ended_while_it_runs(folder: Path) -> None:
    toml = folder / "lictor.toml"
    toml.write_text('mode = "observe"\n' + TOML)
    own = folder / "policies" / "own.cedar"
    own.write_text('@id("no") forbid (principal, action, resource);\n' + CEDAR)
    running = Running(folder)
    try:
        assert running.try_(pay()) == "permit"
        toml.write_text(TOML)
        running.gate.reload()
        assert running.try_(pay()) == "policy_denied"
    finally:
        running.gate.close()


def test_names_can_be_refused_while_it_runs(running: Running) -> None:
    text = running.folder / "lictor.toml"
    text.write_text("require_verified = true\n" + text.read_text())
    running.gate.reload()
    assert running.try_(pay()) == "identity_unverified"


def test_a_gate_made_from_its_parts_has_no_files_to_take(world: Callable[..., object]) -> None:
    gate: Gate = world().gate  # type: ignore[attr-defined]
    with pytest.raises(ConfigError, match="restart"):
        gate.reload()


def test_a_wider_file_on_disk_stops_effects_and_not_reads(
    running: Running, capsys: pytest.CaptureFixture[str]
) -> None:
    running.edit("lictor.toml", "calls = 10", "calls = 11")
    running.look()
    running.look()

    assert running.try_(pay()) == "config_changed"
    assert running.try_(ToolCall(LOOK, {"n": 1})) == "permit"
    told = [
        line
        for line in capsys.readouterr().err.splitlines()
        if line.startswith("lictor: lictor.toml")
    ]
    assert len(told) == 1
    assert "max_calls" in told[0]

    running.edit("lictor.toml", "calls = 11", "calls = 10")
    running.look()
    assert running.try_(pay()) == "permit"


def test_a_narrower_file_on_disk_is_taken_by_itself(running: Running) -> None:
    running.edit("lictor.toml", '["bob", "eve"]', '["bob"]')
    running.look()

    assert running.try_(pay()) == "grant_limit"
    assert running.try_(pay("bob")) == "permit"


def test_a_file_that_others_may_write_now_stops_effects(running: Running) -> None:
    os.chmod(running.folder / "lictor.toml", 0o666)
    running.look()
    assert running.try_(pay()) == "config_changed"


def test_a_file_that_changes_while_it_is_read_makes_no_gate(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from lictor import assemble

    whole = assemble.settings_file.load

    def load(path: Path) -> object:
        found = whole(path)
        path.write_text(TOML + "# more\n")
        return found

    monkeypatch.setattr(assemble.settings_file, "load", load)
    with pytest.raises(ConfigError, match="changes while it is read"):
        read(folder / "lictor.toml")


# -- tools whose own folders hold the files -------------------------------------------------------


def exposed(folder: Path, find: str, put: str, file: str = "catalog.toml") -> ConfigError | Project:
    path = folder / file
    text = path.read_text()
    assert find in text
    path.write_text(text.replace(find, put, 1))
    try:
        return read(folder / "lictor.toml")
    except ConfigError as error:
        return error


@pytest.mark.parametrize("root", ["{folder}", "{folder}/..", ".", "/", "{folder}/.lictor/x", "way"])
def test_a_tool_with_an_effect_and_a_folder_around_ours_is_refused(folder: Path, root: str) -> None:
    (folder.parent / "way").symlink_to(folder)
    place = root.format(folder=folder).replace("way", str(folder.parent / "way"))
    error = exposed(folder, 'impact = ["write"]', f'impact = ["write"]\nroots = ["{place}"]')

    assert isinstance(error, ConfigError)
    assert "roots" in error.where
    assert "local/note" in error.problem
    assert str(folder) in error.problem
    assert "move Lictor's files" in error.mend


@pytest.mark.parametrize(
    ("find", "put"),
    [
        ('impact = ["read"]', 'impact = ["read"]\nroots = ["."]'),
        ('impact = ["write"]', 'impact = ["write"]\nroots = ["data", "/srv/elsewhere"]'),
        ('impact = ["write"]', 'impact = ["write"]\nblocked = true\nroots = ["."]'),
    ],
)
def test_a_reader_and_a_folder_beside_ours_pass(folder: Path, find: str, put: str) -> None:
    found = exposed(folder, find, put)
    assert isinstance(found, Project), found


@pytest.mark.parametrize(
    ("limit", "refused"),
    [
        ('{{ path_under = "{folder}" }}', True),
        ('{{ path_under = "{way}" }}', True),
        ('{{ path_under = "{folder}/data" }}', False),
        ('{{ prefix = "{folder}/cat" }}', True),
        ('{{ one_of = ["/x", "{folder}/lictor.toml"] }}', True),
        ('{{ one_of = ["/x", "{folder}/notes.md"] }}', False),
        ("{{ any = true }}", False),
    ],
)
def test_limits_that_let_an_effect_reach_our_files_are_refused(
    folder: Path, limit: str, refused: bool
) -> None:
    (folder.parent / "way").symlink_to(folder)
    text = limit.format(folder=folder, way=folder.parent / "way")
    put = f'[tasks.free]\ntools = ["note"]\nlimits.note.text = {text}\n'
    found = exposed(folder, '[tasks.free]\ntools = ["note"]\n', put, "lictor.toml")

    assert isinstance(found, ConfigError) is refused, found
    if isinstance(found, ConfigError):
        assert "tasks.free.limits.local/note.text" in found.where


def test_the_line_of_the_message_works(folder: Path) -> None:
    """`__file__` of a script is absolute, also when it is started by a relative name."""
    import subprocess
    import sys

    with pytest.raises(ConfigError) as caught:
        Gate.from_file("lictor.toml")
    line = caught.value.mend
    assert line == 'Gate.from_file(Path(__file__).with_name("lictor.toml"))'
    program = f"from pathlib import Path\nfrom lictor import Gate\nwith {line} as gate: print('up')"
    (folder / "app.py").write_text(program)
    done = subprocess.run(
        [sys.executable, "app.py"], cwd=folder, capture_output=True, text=True, check=False
    )
    assert done.stdout == "up\n", done.stderr
