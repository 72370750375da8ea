"""`lictor check`: drift against a program's own tools, and what does not belong into production."""

from __future__ import annotations

import re
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from typer.testing import CliRunner

from lictor.catalog import Decided, classify, note
from lictor.cli import app
from lictor.errors import ConfigError
from lictor.model import Impact, Tool, ToolKey
from lictor.testing import tool_of

SAFE = """\
profile = "production"

[agents.bot]
owner = "alice"

[users.alice]

[tasks.pay]
tools = ["pay"]
"""
PROGRAM = """\
from langchain_core.tools import tool

print("running")

@tool
def pay(to: str, amount: float) -> str:
    "Pays."
    return "{answer}"

@tool
def look(n: int) -> str:
    "Looks."
    return str(n)

TOOLS = [pay, look]
MADE = lambda: TOOLS
NAMED = {{"pay": pay, "look": look}}
SERVED = {{"local": [pay], "files": [look]}}
NONE = 7
ODD = [object()]

def broken():
    raise SystemExit(3)
"""
SERVED = """\
from mcp.server import MCPServer
from mcp.types import Tool

SERVER = MCPServer("notes")
TOOLS = [Tool(name="look", input_schema={"type": "object"})]
NAMED = {"notes": [SERVER]}
SENT = {"look": TOOLS[0]}
"""
APPROVED = """\
@id("approve") @require("approval:cfo")
forbid (principal, action in {action}, resource)
unless {{ context.met.contains("approval:cfo") }};
"""


class Project:
    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.toml = folder / "catalog.toml"

    def review(self, tool: Tool, *impact: str, **parts: object) -> None:
        given = {"reviewer": "ops", "reviewed_at": "2026-11-24", **parts}
        decided = Decided(frozenset(map(Impact, impact)), **given)  # type: ignore[arg-type]
        classify(self.toml, self.folder / "catalog.lock", tool, decided)

    def check(self, *words: str, ends: int = 0, at: Path | None = None) -> str:
        argv = ["check", *words, "-p", str(at or self.folder)]
        done = CliRunner().invoke(app, argv, env={"COLUMNS": "300"})
        if done.exception is not None and not isinstance(done.exception, SystemExit):
            raise done.exception
        assert done.exit_code == ends, done.output
        return done.output


@pytest.fixture
def project(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Project:
    """A project on a machine without secrets."""
    monkeypatch.setattr("lictor.cli.production.within_reach", lambda: ())
    monkeypatch.setattr("lictor.cli.check.within_reach", lambda: ())
    monkeypatch.setenv("HOME", str(tmp_path))
    return Project(tmp_path)


# -- a folder of Gate.dev() -----------------------------------------------------------------------


def test_a_folder_without_lictor_toml_is_a_project_once_a_gate_was_in_it(project: Project) -> None:
    with pytest.raises(ConfigError, match="no gate has been in its folder"):
        project.check()
    note(project.folder / ".lictor/seen.json", [tool_of("look")])

    output = project.check()

    assert "profile local, mode enforce, 0 reviewed tools" in output
    assert "1 tools wait for review: local/look\n  mend: lictor review" in output
    assert project.check(at=project.folder / "lictor.toml") == output


def test_a_folder_that_others_can_write_is_no_project(project: Project) -> None:
    note(project.folder / ".lictor/seen.json", [tool_of("look")])
    project.folder.chmod(0o777)
    try:
        with pytest.raises(ConfigError, match="can be written by others"):
            project.check()
    finally:
        project.folder.chmod(0o755)


# -- a program's own tools ------------------------------------------------------------------------


@pytest.fixture
def program(project: Project) -> Iterator[str]:
    """A module whose tools are reviewed as they are."""
    name = f"program_{re.sub('[^a-z0-9]', '_', project.folder.name.lower())}"
    (project.folder / f"{name}.py").write_text(PROGRAM.format(answer="paid"))
    sys.path.insert(0, str(project.folder))
    try:
        from lictor_langchain import definition

        module = __import__(name)
        project.review(definition(module.pay), "transfer", target=("to",), amount="amount")
        project.review(definition(module.look), "read")
        del sys.modules[name]
        yield name
    finally:
        sys.path.remove(str(project.folder))
        sys.modules.pop(name, None)


@pytest.mark.parametrize("which", ["TOOLS", "MADE", "NAMED"])
def test_tools_that_are_as_reviewed_are_no_drift(
    project: Project, program: str, which: str
) -> None:
    output = project.check("--tools", f"{program}:{which}")

    assert f"importing {program}:{which}" in output
    assert "2 tools, all as they were reviewed" in output


def test_nothing_is_imported_unless_it_is_named(project: Project, program: str) -> None:
    project.check()

    assert program not in sys.modules


def test_drift_names_new_changed_blocked_and_missing(project: Project, program: str) -> None:
    source = (project.folder / f"{program}.py").read_text()
    source = source.replace('"paid"', '"stolen"').replace("TOOLS = [pay, look]", "TOOLS = [pay]")
    (project.folder / f"{program}.py").write_text(source)

    output = project.check("--tools", f"{program}:TOOLS", ends=1)
    assert "local/pay has changed" in output
    assert "origin: " in output
    assert "local/look is reviewed, and the program does not have it" in output

    project.review(tool_of("look"), blocked=True)
    output = project.check("--tools", f"{program}:NAMED", ends=1)
    assert "local/look is blocked" in output
    assert "mend: start the program once, then lictor review" in output

    output = project.check("--tools", f"{program}:SERVED", ends=1)
    assert "files/look is not reviewed" in output


def test_what_is_invisible_in_a_changed_tool_is_escaped_once(
    project: Project, program: str
) -> None:
    source = (project.folder / f"{program}.py").read_text()
    changed = source.replace('"Pays."', r'"Pays.\u200b [bold]"')
    (project.folder / f"{program}.py").write_text(changed)

    output = project.check("--tools", f"{program}:TOOLS", ends=1)

    assert r"{+\u{200b} [bold]+}" in output


def test_what_ran_as_the_main_program_is_the_same_when_it_is_imported(
    project: Project, program: str
) -> None:
    for path in (project.toml, project.folder / "catalog.lock"):
        path.unlink()
    from lictor_langchain import definition

    module = __import__(program)
    for tool, impact in ((module.pay, "transfer"), (module.look, "read")):
        known = definition(tool)
        main = known.origin.replace(f"{program}:", "__main__:")
        assert main.startswith("__main__:")
        project.review(Tool.from_definition({**known.definition(), "origin": main}), impact)

    assert "all as they were reviewed" in project.check("--tools", f"{program}:TOOLS")


@pytest.mark.parametrize(
    ("which", "problem"),
    [
        ("TOOLS", "is not module:NAME"),
        ("nowhere_at_all:TOOLS", "no module 'nowhere_at_all'"),
        ("{}:GONE", "has no attribute 'GONE'"),
        ("{}:NONE", "is int, no tools"),
        ("{}:ODD", "is no tool"),
        ("{}:broken", "ended with SystemExit: 3"),
    ],
)
def test_what_is_no_list_of_tools_is_said_in_words(
    project: Project, program: str, which: str, problem: str
) -> None:
    with pytest.raises(ConfigError, match=re.escape(problem)) as caught:
        project.check("--tools", which.format(program))
    assert caught.value.mend


@pytest.mark.parametrize("name", ["SERVER", "TOOLS", "NAMED", "SENT"])
def test_tools_of_an_mcp_server_are_read_from_the_server(project: Project, name: str) -> None:
    module = f"served_{re.sub('[^a-z0-9]', '_', project.folder.name.lower())}"
    pytest.importorskip("mcp.server.context", reason="needs mcp 2.x")
    (project.folder / f"{module}.py").write_text(SERVED)
    (project.folder / "lictor.toml").write_text(SAFE)
    try:
        with pytest.raises(ConfigError, match="belongs to an MCP server") as caught:
            project.check("--tools", f"{module}:{name}")
    finally:
        sys.modules.pop(module, None)

    assert "lictor catalog lock --server NAME" in caught.value.mend


# -- production -----------------------------------------------------------------------------------


PAY = tool_of("pay", {"to": {"type": "string"}, "amount": {"type": "number"}})
LOOK = tool_of("look", {"n": {"type": "integer"}})
WIPE = tool_of("wipe", {"path": {"type": "string"}})


def named(output: str) -> list[str]:
    return re.findall(r"^production: (.*)$", output, re.MULTILINE)


def test_a_project_fit_for_production_is_ok(project: Project) -> None:
    (project.folder / "lictor.toml").write_text(SAFE)
    project.review(LOOK, "read")
    project.review(PAY, "send", target=("to",))

    assert project.check("--production").endswith("ok\n")


@pytest.mark.parametrize("impact", ["transfer", "delete", "execute"])
def test_every_grave_tool_without_an_approval_is_named_and_the_mend_mends_it(
    project: Project, impact: str
) -> None:
    (project.folder / "lictor.toml").write_text(SAFE)
    project.review(PAY, impact)

    output = project.check("--production", ends=1)

    assert named(output) == [f"local/pay may {impact} without an approval"]
    (mend,) = re.findall(r"mend: in policies/approvals.cedar: (.*)$", output, re.MULTILINE)
    (project.folder / "policies").mkdir()
    (project.folder / "policies/approvals.cedar").write_text(mend.replace("ROLE", "cfo"))
    (project.folder / "lictor.toml").write_text(SAFE + '[users.carol]\nroles = ["cfo"]\n')
    assert project.check("--production").endswith("ok\n")


@pytest.mark.parametrize(
    "policy",
    [
        APPROVED.format(action='[Lictor::Action::"transfer"]'),
        APPROVED.format(action='Lictor::Action::"effect"'),
        APPROVED.format(action='Lictor::Action::"effect"').replace("approval:cfo", "four-eyes:cfo"),
        '@id("never") forbid (principal, action == Lictor::Action::"local/pay", resource);',
    ],
)
def test_an_approval_of_every_call_is_a_proof(project: Project, policy: str) -> None:
    self_check(project, policy)
    assert project.check("--production").endswith("ok\n")


@pytest.mark.parametrize(
    "policy",
    [
        APPROVED.format(action='[Lictor::Action::"delete"]'),
        APPROVED.format(action='Lictor::Action::"effect"').replace("approval:cfo", "confirm:user"),
        APPROVED.format(action='Lictor::Action::"effect"').replace(
            "\nunless", "\nwhen { context.autonomous }\nunless"
        ),
        APPROVED.format(action='Lictor::Action::"effect"').replace(
            "(principal,", "(principal is Lictor::Workload,"
        ),
    ],
    ids=["other-action", "confirm", "condition", "principal"],
)
def test_an_approval_of_some_calls_is_none(project: Project, policy: str) -> None:
    self_check(project, policy)
    (found,) = named(project.check("--production", ends=1))
    assert found.startswith("local/pay may transfer without an approval")


def self_check(project: Project, policy: str) -> None:
    (project.folder / "lictor.toml").write_text(SAFE + '[users.carol]\nroles = ["cfo"]\n')
    project.review(PAY, "transfer")
    (project.folder / "policies").mkdir()
    (project.folder / "policies/own.cedar").write_text(policy)


def test_a_rule_that_asks_beyond_its_limits_is_named_with_its_rule(project: Project) -> None:
    (project.folder / "lictor.toml").write_text(
        SAFE
        + '[users.carol]\nroles = ["cfo"]\n[[rule]]\ntool = "local/pay"\n'
        + 'allow = { amount = { min = "0", max = "500" } }\notherwise = "approval:cfo"\n'
    )
    project.review(
        tool_of("pay", dict(PAY.input_schema["properties"]), required=["amount"]), "transfer"
    )  # type: ignore[call-overload]

    (found,) = named(project.check("--production", ends=1))

    assert found.endswith("(rule:local/pay:otherwise demands one of some calls only)")


def test_a_blocked_tool_is_not_named(project: Project) -> None:
    (project.folder / "lictor.toml").write_text(SAFE)
    project.review(PAY, "transfer", blocked=True)

    assert project.check("--production").endswith("ok\n")


def test_a_development_review_is_named_with_everything_else_about_the_tool(
    project: Project,
) -> None:
    (project.folder / "lictor.toml").write_text(SAFE)
    project.review(LOOK, "read", reviewed_in="dev")
    project.review(WIPE, "delete", reviewed_in="dev")

    output = project.check("--production", ends=1)

    assert named(output) == [
        "local/look was reviewed in development only, so it would not run",
        "local/wipe was reviewed in development only, so it would not run",
        "local/wipe may delete without an approval",
        "local/wipe takes a path (path) and may reach any folder",
    ]
    assert "mend: lictor review --confirm" in output


def test_roots_are_missing_only_where_they_are(project: Project) -> None:
    (project.folder / "lictor.toml").write_text(SAFE)
    project.review(tool_of("read_file", {"path": {"type": "string"}}), "read")
    project.review(tool_of("save", {"where": {"type": "string"}}), "write")
    project.toml.write_text(
        project.toml.read_text().replace(
            'name = "save"', 'name = "save"\nformats = { where = "path" }'
        )
    )

    (found,) = named(project.check("--production", ends=1))
    assert found == "local/save takes a path (where) and may reach any folder"

    project.toml.write_text(
        project.toml.read_text().replace('name = "save"', 'name = "save"\nroots = ["data"]')
    )
    assert project.check("--production").endswith("ok\n")


def test_settings_that_belong_to_a_desk_are_named(project: Project) -> None:
    (project.folder / "lictor.toml").write_text(
        SAFE.replace('profile = "production"', 'mode = "observe"')
    )

    found = named(project.check("--production", ends=1))

    assert found == [
        'profile = "local"',
        'mode = "observe" lets calls proceed that policy denies',
        "agents.bot is asserted: a name counts as proof",
        "users.alice is asserted: a name counts as proof",
        "tasks.pay runs for whoever is named",
    ]


def test_asserted_identities_are_named_also_where_production_lets_them(project: Project) -> None:
    (project.folder / "lictor.toml").write_text("require_verified = false\n" + SAFE)

    assert len(named(project.check("--production", ends=1))) == 3


def test_a_process_task_is_named(project: Project) -> None:
    process = 'process = { task = "pay", agent = "bot", user = "alice" }\n'
    (project.folder / "lictor.toml").write_text(process + SAFE.partition("\n")[2])

    output = project.check("--production", ends=1)

    assert "process: calls outside any task run as bot for alice" in named(output)


def test_secrets_are_named_and_never_shown(
    project: Project, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.undo()
    monkeypatch.setenv("SOME_VENDOR_API_KEY", "s3cret")
    (project.folder / "lictor.toml").write_text(SAFE)

    output = project.check("--production", ends=1)

    assert "SOME_VENDOR_API_KEY" in named(output)[0]
    assert "s3cret" not in output


def test_a_name_of_a_tool_cannot_write_into_the_mend(project: Project) -> None:
    (project.folder / "lictor.toml").write_text(SAFE)
    project.review(Tool(ToolKey("local", 'x", resource); permit(principal'), "", {}), "delete")

    output = project.check("--production", ends=1)

    (mend,) = re.findall(r"approvals.cedar: (.*)$", output, re.MULTILINE)
    (project.folder / "policies").mkdir()
    (project.folder / "policies/approvals.cedar").write_text(mend.replace("ROLE", "cfo"))
    (project.folder / "lictor.toml").write_text(SAFE + '[users.carol]\nroles = ["cfo"]\n')
    assert project.check("--production").endswith("ok\n")
