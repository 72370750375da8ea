"""`lictor attack` tries ways around on a LlamaIndex agent, and runs nothing of the user's."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from typer.testing import CliRunner

from lictor.catalog import Decided, classify, read_seen
from lictor.cli import app
from lictor.model import Impact

pytest.importorskip("llama_index")

from lictor_llamaindex.attack import target

pytestmark = pytest.mark.filterwarnings(
    "ignore::DeprecationWarning"  # of the host: it looks at every attribute of an agent
)
PROGRAM = '''
from pathlib import Path
from llama_index.core.agent.workflow import AgentWorkflow, FunctionAgent, ReActAgent
from llama_index.core.query_engine import CustomQueryEngine
from llama_index.core.tools import FunctionTool, QueryEngineTool
from llama_index.core.workflow import Context
from lictor import Gate
from lictor_llamaindex import guard, guard_agent
from lictor_llamaindex.testing import Script

RAN = Path(__file__).with_name("ran")
HEARD = Path(__file__).with_name("heard")

class Notices(CustomQueryEngine):
    def custom_query(self, query_str: str) -> str:
        RAN.touch()
        return "text"

async def send(to: str, copies: int) -> str:
    """Sends."""
    RAN.touch()
    return "sent"

def save(path: str, text: str) -> str:
    """Saves."""
    RAN.touch()
    return "saved"

def look(ctx: Context, page: int) -> str:
    """Looks."""
    RAN.touch()
    return "seen"

class Listening(Script):
    def __call__(self, messages, **given):
        HEARD.touch()
        return super().__call__(messages, **given)

def tools():
    notice = QueryEngineTool.from_defaults(Notices(), name="notice", description="Reads a notice.")
    return [notice, send, FunctionTool.from_defaults(save), FunctionTool.from_defaults(look)]

def gate():
    return Gate.from_file(Path(__file__).with_name("lictor.toml").resolve())

def agent(kind=FunctionAgent, name="banker", **more):
    return kind(name=name, tools=tools(), llm=Listening().model(), **more)

def make():
    with Path(__file__).with_name("made").open("a") as file:
        file.write("x")
    return guard_agent(agent(), gate())

def react():
    return guard_agent(agent(ReActAgent), gate())

def workflow():
    clerk = FunctionAgent(name="clerk", description="Waits.", llm=Listening().model())
    flow = AgentWorkflow([clerk, agent(name="helper", description="Acts.")], root_agent="clerk")
    return guard_agent(flow, gate())

def idle():
    return guard_agent(FunctionAgent(name="banker", llm=Script().model()), gate())

def half():
    made = gate()
    first, *rest = tools()
    return FunctionAgent(name="banker", tools=[guard(first, made), *rest], llm=Script().model())
'''
SETTINGS = """
[agents.banker]
owner = "alice"
[agents.helper]
owner = "alice"
[users.alice]
[tasks.rent]
tools = ["notice", "send", "save", "look"]
[tasks.rent.limits.send]
to = "landlord"
copies = { min = "1", max = "5" }
[tasks.rent.limits.save]
path = { path_under = "/data" }
text = { any = true }
"""
REVIEWS = {
    "notice": (Impact.READ, ()),
    "look": (Impact.READ, ()),
    "send": (Impact.SEND, ("to",)),
    "save": (Impact.WRITE, ("path",)),
}


@pytest.fixture
def project(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "lictor.toml").write_text(SETTINGS)
    (tmp_path / "attacked_index.py").write_text(PROGRAM)
    monkeypatch.syspath_prepend(str(tmp_path))
    import attacked_index

    found = target(attacked_index.make())
    assert found is not None
    found.gates[0].close()
    for tool in read_seen(tmp_path / ".lictor" / "seen.json").values():
        impact, aims = REVIEWS[tool.key.name]
        decided = Decided(frozenset({impact}), "alice", "2026-11-24T00:00:00Z", aims)
        classify(tmp_path / "catalog.toml", tmp_path / "catalog.lock", tool, decided)
    say(tmp_path, 'produces = ["untrusted"]', of="look")
    del sys.modules["attacked_index"]
    yield tmp_path
    sys.modules.pop("attacked_index", None)


def attack(*arguments: str) -> tuple[int, str]:
    sys.modules.pop("attacked_index", None)
    result = CliRunner().invoke(app, ["attack", *arguments, "--agent", "banker"])
    return result.exit_code, result.output + str(result.exception or "")


def say(project: Path, text: str, *, of: str = "notice") -> None:
    catalog = project / "catalog.toml"
    name = f'name = "{of}"\n'
    catalog.write_text(catalog.read_text().replace(name, f"{name}{text}\n"))


def test_a_read_that_nobody_called_untrusted_lets_its_orders_through(project: Path) -> None:
    code, said = attack("attacked_index:make")

    assert code == 1, said
    went = [line for line in said.splitlines() if line.startswith("WENT THROUGH")]
    assert len(went) == 1, said
    assert "local/notice: what it reads gives orders [X48]: then local/send" in went[0]


@pytest.mark.parametrize("made", ["make", "react"])
def test_with_a_true_review_everything_that_applies_is_stopped(project: Path, made: str) -> None:
    say(project, 'produces = ["untrusted"]')

    code, said = attack(f"attacked_index:{made}")

    assert code == 0, said
    assert "WENT THROUGH" not in said
    assert "stopped       local/notice: what it reads gives orders [X48]" in said
    assert "stopped       local/notice: entered beside the host's own methods [X01]" in said
    assert "stopped       local/send: given values of other types [X21]" in said
    assert "stopped       local/send: one call made twice [X52]" in said
    assert "stopped       local/send: another tool in its place [X02 X18]" in said
    assert "stopped       local/save: given values beyond the task's limits [X23]" in said
    assert "stopped       local/look: given an argument too many [X22]" in said


def test_in_a_workflow_whoever_holds_a_tool_calls_it(project: Path) -> None:
    say(project, 'produces = ["untrusted"]')

    code, said = attack("attacked_index:workflow")

    assert code == 0, said
    assert "stopped       local/send: one call made twice [X52]" in said
    assert "stopped       local/handoff: another tool in its place [X02 X18]" in said
    assert "local/handoff: called without a task [X41]: the plain call is denied already" in said


def test_nothing_of_the_user_runs_or_is_written_and_his_model_hears_nothing(project: Path) -> None:
    store = (project / ".lictor" / "lictor.db").read_bytes()
    seen = (project / ".lictor" / "seen.json").read_bytes()

    (project / "made").unlink()
    attack("attacked_index:make")

    assert (project / "made").read_text() == "x"  # once: each has a gate, and only one is closed
    assert not (project / "ran").exists()
    assert not (project / "heard").exists()
    assert (project / ".lictor" / "lictor.db").read_bytes() == store
    assert (project / ".lictor" / "seen.json").read_bytes() == seen


def test_tools_that_nobody_guards_are_named(project: Path) -> None:
    code, said = attack("attacked_index:half")

    assert code == 1
    for name in ("send", "save", "look"):
        assert f"WENT THROUGH  {name}: guarded at all [X14]" in said
    assert "WENT THROUGH  local/notice: another tool in its place" in said


def test_an_agent_without_tools_has_not_withstood_anything(project: Path) -> None:
    code, said = attack("attacked_index:idle")

    assert code != 0
    assert "attacked_index:idle: has no tools" in " ".join(said.split())


def test_what_is_no_agent_of_the_host_is_left_to_others() -> None:
    assert target(lambda: None) is None
