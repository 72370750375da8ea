"""`lictor attack` tries ways around on the user's own agent, and runs nothing of his."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from opentelemetry import trace
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.export import SimpleSpanProcessor
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter
from typer.testing import CliRunner

from lictor.assemble import Project, Stage
from lictor.catalog import Decided, classify, read_seen
from lictor.cli import app
from lictor.gate import Gate
from lictor.model import Impact

pytest.importorskip("langchain")

PROGRAM = '''
from pathlib import Path
from langchain_core.tools import BaseTool, tool
from lictor import Gate
from lictor_langchain import create_agent
from lictor_langchain.testing import ScriptedModel

RAN = Path(__file__).with_name("ran")

@tool
def notice(name: str) -> str:
    """Reads a notice."""
    RAN.touch()
    return "text"

@tool(response_format="content_and_artifact")
async def send(to: str, copies: int) -> tuple[str, int]:
    """Sends."""
    RAN.touch()
    return "sent", 1

class Save(BaseTool):
    name: str = "save"
    description: str = "Saves."

    def _run(self, path: str, text: str) -> str:
        RAN.touch()
        return "saved"

def tools():
    return [notice, send, Save()]

def make():
    gate = Gate.from_file(Path(__file__).with_name("lictor.toml").resolve())
    return create_agent(ScriptedModel(), tools(), gate=gate)
'''
SETTINGS = """
[agents.banker]
owner = "alice"
[users.alice]
[tasks.rent]
tools = ["notice", "send", "save"]
[tasks.rent.limits.send]
to = "landlord"
copies = { min = "1", max = "5" }
[tasks.rent.limits.save]
path = { path_under = "/data" }
text = { any = true }
"""
REVIEWS = {
    "notice": (Impact.READ, ()),
    "send": (Impact.SEND, ("to",)),
    "save": (Impact.WRITE, ("path",)),
}


@pytest.fixture
def project(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "lictor.toml").write_text(SETTINGS)
    (tmp_path / "attacked_app.py").write_text(PROGRAM)
    monkeypatch.syspath_prepend(str(tmp_path))
    import attacked_app

    agent = attacked_app.make()
    from lictor_langchain.attack import target

    found = target(agent)
    assert found is not None
    found.gates[0].close()
    for tool in read_seen(tmp_path / ".lictor" / "seen.json").values():
        impact, aims = REVIEWS[tool.key.name]
        decided = Decided(frozenset({impact}), "alice", "2026-11-24T00:00:00Z", aims)
        classify(tmp_path / "catalog.toml", tmp_path / "catalog.lock", tool, decided)
    del sys.modules["attacked_app"]
    yield tmp_path
    sys.modules.pop("attacked_app", None)


def attack(*arguments: str) -> tuple[int, str]:
    sys.modules.pop("attacked_app", None)
    result = CliRunner().invoke(app, ["attack", *arguments])
    return result.exit_code, result.output + str(result.exception or "")


@contextmanager
def closed_gates(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    made: list[Gate] = []
    closed: list[Gate] = []
    rehearse, close = Stage.rehearse, Gate.close

    def making(self: Stage, project: Project) -> Gate:
        made.append(rehearse(self, project))
        return made[-1]

    def closing(self: Gate) -> None:
        closed.append(self)
        close(self)

    monkeypatch.setattr(Stage, "rehearse", making)
    monkeypatch.setattr(Gate, "close", closing)
    yield
    assert closed == made


def say(project: Path, text: str, *, of: str = "notice") -> None:
    catalog = project / "catalog.toml"
    name = f'name = "{of}"\n'
    catalog.write_text(catalog.read_text().replace(name, f"{name}{text}\n"))


def test_a_read_that_nobody_called_untrusted_lets_its_orders_through(project: Path) -> None:
    code, said = attack("attacked_app:make")

    assert code == 1
    went = [line for line in said.splitlines() if line.startswith("WENT THROUGH")]
    assert len(went) == 1
    assert "local/notice: what it reads gives orders [X48]: then local/send" in went[0]
    assert 'produces = ["untrusted"]' in went[0]


def test_with_a_true_review_everything_that_applies_is_stopped(project: Path) -> None:
    say(project, 'produces = ["untrusted"]')

    code, said = attack("attacked_app:make")

    assert code == 0, said
    assert "WENT THROUGH" not in said
    assert "stopped       local/notice: what it reads gives orders [X48]" in said
    assert "stopped       local/send: given values of other types [X21]" in said
    assert "stopped       local/save: given values beyond the task's limits [X23]" in said


def test_nothing_of_the_user_runs_or_is_written(project: Path) -> None:
    store = (project / ".lictor" / "lictor.db").read_bytes()
    seen = (project / ".lictor" / "seen.json").read_bytes()

    attack("attacked_app:make")

    assert not (project / "ran").exists()
    assert (project / ".lictor" / "lictor.db").read_bytes() == store
    assert (project / ".lictor" / "seen.json").read_bytes() == seen


def test_the_exporters_of_the_program_are_told_of_no_attack(
    project: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    told, exporter = TracerProvider(), InMemorySpanExporter()
    told.add_span_processor(SimpleSpanProcessor(exporter))
    monkeypatch.setattr(trace, "_TRACER_PROVIDER", told)

    said = attack("attacked_app:make")[1]

    assert "stopped" in said
    assert exporter.get_finished_spans() == ()


def test_what_does_not_apply_says_why_and_is_counted(project: Path) -> None:
    say(project, 'produces = ["untrusted"]')

    said = attack("attacked_app:make")[1]

    lines = said.splitlines()
    why = [line for line in lines if line.startswith("not applicable")]
    assert all(line.count(": ") >= 2 for line in why)
    assert any("it reads, and every task may read" in line for line in why)
    stopped = sum(line.startswith("stopped") for line in lines)
    assert f"{stopped} tried, {stopped} stopped, {len(why)} not applicable" in said
    assert "%" not in said


def test_the_gates_own_files_are_tried_where_the_review_names_a_path(project: Path) -> None:
    say(project, 'formats = { path = "path" }', of="save")

    said = attack("attacked_app:make")[1]

    assert "stopped       local/save: sent to the gate's own files [X70]" in said


def test_what_is_denied_for_made_up_arguments_counts_for_nothing(project: Path) -> None:
    toml = project / "lictor.toml"
    say(project, 'formats = { path = "path" }', of="save")
    toml.write_text(
        toml.read_text()
        + """
[[rule]]
tool = "local/save"
allow = { path = { path_under = "/data/reports" } }
otherwise = "deny"
"""
    )

    said = attack("attacked_app:make")[1]

    lines = [line for line in said.splitlines() if "local/save" in line]
    by_plain = [line for line in lines if "the plain call is denied already: " in line]
    assert any("called without a task" in line for line in by_plain), said
    assert any("the gate's own files" in line for line in by_plain), said
    assert not any("values beyond" in line for line in lines if line.startswith("stopped"))


def test_a_tool_that_asks_a_person_first_is_attacked_like_others(project: Path) -> None:
    say(project, 'formats = { path = "path" }', of="save")
    toml = project / "lictor.toml"
    toml.write_text(
        toml.read_text()
        + """
[[rule]]
tool = "local/save"
allow = { path = { path_under = "/data/reports" } }
otherwise = "confirm:user"
"""
    )

    said = attack("attacked_app:make")[1]

    assert "stopped       local/save: called without a task [X41]" in said


def test_a_tool_that_nobody_guards_went_through(
    project: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    program = (project / "attacked_app.py").read_text()
    program += """
def bare():
    from langchain import agents
    Gate.from_file(Path(__file__).with_name("lictor.toml").resolve())
    return agents.create_agent(ScriptedModel(), tools())
"""
    (project / "attacked_app.py").write_text(program)

    code, said = attack("attacked_app:bare")

    assert code == 1
    assert said.count("no gate guards this tool") == 3


def test_a_policy_that_permits_everything_is_found_out(project: Path) -> None:
    toml = project / "lictor.toml"
    toml.write_text('guardrails = ""\n' + toml.read_text())
    (project / "policies").mkdir()
    (project / "policies" / "all.cedar").write_text("permit(principal, action, resource);\n")
    say(project, 'produces = ["untrusted"]')

    code, said = attack("attacked_app:make")

    assert code == 1
    assert "WENT THROUGH  local/notice: what it reads gives orders" in said


@pytest.mark.parametrize(
    ("arguments", "told"),
    [
        (["attacked_app"], "write module:name"),
        (["no_such_module:x"], "No module named 'no_such_module'"),
        (["attacked_app:nobody"], "attacked_app has no nobody"),
        (["attacked_app:SETTINGS_"], "has no SETTINGS_"),
        (["attacked_app:RAN"], "is no agent of a host"),
        (["attacked_app:make", "--task", "other"], "'other' is not known"),
        (["attacked_app:make", "--user", "mallory"], "'mallory' is not known"),
    ],
)
def test_what_is_wrong_is_said_and_no_gate_stays_open(
    project: Path, monkeypatch: pytest.MonkeyPatch, arguments: list[str], told: str
) -> None:
    with closed_gates(monkeypatch):
        code, said = attack(*arguments)

    assert code != 0
    assert told in said
