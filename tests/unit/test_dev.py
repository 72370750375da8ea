"""`Gate.dev()` without a person: what it refuses, what it reads, and whose task calls belong to."""

from __future__ import annotations

import os
import subprocess
import sys
import tempfile
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest

from lictor import audit
from lictor.catalog import Decided, classify
from lictor.errors import ConfigError, Denied, TaskError
from lictor.gate import Gate
from lictor.model import Impact, Tool, ToolCall
from lictor.task import current
from lictor.testing import tool_of

LOOK = tool_of("look", {"n": {"type": "integer"}})
WIPE = tool_of("wipe")
WHEN = "2026-11-24T00:00:00+00:00"


@pytest.fixture(autouse=True)
def closing(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """No gate outlives its test, and nobody is asked at the terminal that the tests run at."""
    from lictor import dev
    from lictor.approval import tty

    monkeypatch.setattr(dev, "_gates", {})
    monkeypatch.delenv("LICTOR_PRODUCTION", raising=False)
    monkeypatch.setattr(tty, "DEVICE", "/nowhere/tty")
    monkeypatch.setattr(dev.Terminal.__init__, "__defaults__", ("/nowhere/tty",))
    yield
    for gate in dev._gates.values():
        gate.close()


def review(folder: Path, tool: Tool, *impact: Impact, **parts: object) -> None:
    decided = Decided(frozenset(impact or {Impact.READ}), "me", WHEN, reviewed_in="dev", **parts)  # type: ignore[arg-type]
    classify(folder / "catalog.toml", folder / "catalog.lock", tool, decided)


def reason(gate: Gate, call: ToolCall) -> str:
    try:
        gate.run(call, dict)
    except Denied as denied:
        return denied.decision.reason
    return "permit"


def detail(gate: Gate, call: ToolCall) -> str:
    with pytest.raises(Denied) as caught:
        gate.run(call, dict)
    return caught.value.decision.detail


# -- one gate for a folder ------------------------------------------------------------------------


def test_two_for_one_folder_are_one_gate(tmp_path: Path) -> None:
    (tmp_path / "link").symlink_to(tmp_path)

    assert Gate.dev(tmp_path) is Gate.dev(str(tmp_path))
    assert Gate.dev(tmp_path / "link") is Gate.dev(tmp_path)


def test_of_many_threads_that_start_at_once_all_get_the_same_gate(tmp_path: Path) -> None:
    ready = threading.Barrier(8)
    found = []

    def start() -> None:
        ready.wait()
        found.append(Gate.dev(tmp_path))

    threads = [threading.Thread(target=start) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()

    assert len(found) == 8
    assert len(set(map(id, found))) == 1


def test_two_folders_are_two_gates(tmp_path: Path) -> None:
    for name in ("a", "b"):
        (tmp_path / name).mkdir()

    assert Gate.dev(tmp_path / "a") is not Gate.dev(tmp_path / "b")


def test_a_closed_gate_is_not_given_out_again_and_authorizes_nothing(tmp_path: Path) -> None:
    review(tmp_path, LOOK)
    first = Gate.dev(tmp_path)
    first.close()

    assert Gate.dev(tmp_path) is not first
    assert reason(first, ToolCall(LOOK, {"n": 1})) == "task_missing"
    assert reason(Gate.dev(tmp_path), ToolCall(LOOK, {"n": 1})) == "permit"


# -- where it refuses -----------------------------------------------------------------------------


def test_the_environment_makes_it_production_with_or_without_a_file(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("LICTOR_PRODUCTION", "1")
    with pytest.raises(ConfigError, match="LICTOR_PRODUCTION: this is a production deployment"):
        Gate.dev(tmp_path)
    assert list(tmp_path.iterdir()) == []

    (tmp_path / "lictor.toml").write_text('profile = "local"\n')
    with pytest.raises(ConfigError, match="LICTOR_PRODUCTION: this is a production deployment"):
        Gate.dev(tmp_path)


@pytest.mark.parametrize("environment", ["", "1", "0"])
def test_a_production_file_is_refused_whatever_the_environment_says(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, environment: str
) -> None:
    monkeypatch.setenv("LICTOR_PRODUCTION", environment)
    (tmp_path / "lictor.toml").write_text('profile = "production"\n')

    with pytest.raises(ConfigError, match=r"lictor\.toml: this is a production.*") as caught:
        Gate.dev(tmp_path)
    assert "Gate.from_file(Path(__file__)" in str(caught.value)
    assert not (tmp_path / ".lictor").exists()


def test_a_gate_that_stands_is_not_turned_by_the_environment_but_the_next_one_is(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    gate = Gate.dev(tmp_path)
    gate.close()
    monkeypatch.setenv("LICTOR_PRODUCTION", "yes")

    with pytest.raises(ConfigError, match="production"):
        Gate.dev(tmp_path)


@pytest.mark.parametrize(
    ("name", "content"),
    [
        ("catalog.toml", "[[tool]\n"),
        ("catalog.toml", "[[tool]]\nname = 3\n"),
        ("catalog.toml", '[[tool]]\nserver = "local"\nname = "look"\nimpact = ["everything"]\n'),
        ("catalog.lock", "nonsense"),
        ("lictor.toml", "profile = \n"),
        ("lictor.toml", 'pofile = "local"\n'),
    ],
)
def test_a_file_of_nonsense_opens_nothing_and_is_named(
    tmp_path: Path, name: str, content: str
) -> None:
    review(tmp_path, LOOK)
    (tmp_path / name).write_text(content)

    with pytest.raises(ConfigError, match=name.replace(".", r"\.")):
        Gate.dev(tmp_path)
    assert not (tmp_path / ".lictor").exists()
    assert (tmp_path / name).read_text() == content


@pytest.mark.parametrize("name", ["lictor.toml", "catalog.toml", "catalog.lock"])
@pytest.mark.attack("X71")
def test_a_file_that_is_a_link_is_refused(tmp_path: Path, name: str) -> None:
    folder = tmp_path / "app"
    folder.mkdir()
    review(folder, LOOK)
    (folder / "lictor.toml").write_text("")
    (folder / name).rename(tmp_path / "elsewhere")
    (folder / name).symlink_to(tmp_path / "elsewhere")

    with pytest.raises(ConfigError, match="link"):
        Gate.dev(folder)


@pytest.mark.attack("X71")
def test_a_folder_that_others_may_write_is_refused(tmp_path: Path) -> None:
    folder = tmp_path / "open" / "app"
    folder.mkdir(parents=True)
    folder.parent.chmod(0o777)

    with pytest.raises(ConfigError, match="open"):
        Gate.dev(folder)
    assert list(folder.iterdir()) == []


def test_a_folder_that_is_not_there_is_named_with_what_helps(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r'Gate\.dev\("'):
        Gate.dev(tmp_path / "nowhere")


READONLY = """
import os, sys
from lictor import Gate
from lictor.errors import LictorError
warm, folder = sys.argv[1:]
Gate.dev(warm).close()  # every module is loaded while Python's own folders can still be read
if os.getuid() == 0:
    os.setgid(65534); os.setuid(65534)
try:
    Gate.dev(folder)
except LictorError as error:
    print(type(error).__name__, error)
"""


@pytest.fixture
def readable() -> Iterator[Path]:
    """A folder that another account can come to, unlike `tmp_path`."""
    with tempfile.TemporaryDirectory() as made:
        Path(made).chmod(0o755)
        yield Path(made)


@pytest.mark.parametrize("settings", [None, ""])
def test_a_folder_that_cannot_be_written_is_refused(readable: Path, settings: str | None) -> None:
    folder, warm = readable / "app", readable / "warm"
    folder.mkdir()
    warm.mkdir()
    if settings is not None:
        (folder / "lictor.toml").write_text(settings)
    folder.chmod(0o555)
    try:
        done = subprocess.run(
            [sys.executable, "-c", READONLY, str(warm), str(folder)],
            capture_output=True,
            text=True,
            cwd="/",
        )
    finally:
        folder.chmod(0o755)

    assert f"ConfigError {folder}" in done.stdout, done.stderr
    assert {each.name for each in folder.iterdir()} <= {"lictor.toml"}


# -- never looser ---------------------------------------------------------------------------------


def test_it_never_observes(tmp_path: Path) -> None:
    review(tmp_path, LOOK)
    (tmp_path / "policies").mkdir()
    (tmp_path / "policies/no.cedar").write_text('@id("no") forbid (principal, action, resource);')
    (tmp_path / "lictor.toml").write_text('mode = "observe"\n')

    assert reason(Gate.dev(tmp_path), ToolCall(LOOK, {"n": 1})) == "policy_denied"


def test_settings_beside_the_program_hold(tmp_path: Path) -> None:
    (tmp_path / "lictor.toml").write_text("""
tenant = "acme"
[users.alice]
[agents.bot]
owner = "alice"
[tasks.looking]
tools = ["look"]
limits = { look = { n = { min = 1, max = 3 } } }
[[rule]]
tool = "local/look"
allow = { n = { min = "1", max = "2" } }
otherwise = "deny"
""")
    review(tmp_path, LOOK)
    gate = Gate.dev(tmp_path)

    assert gate.process is not None
    assert gate.process.grant.tenant == "acme"
    assert reason(gate, ToolCall(LOOK, {"n": 2})) == "permit"
    assert reason(gate, ToolCall(LOOK, {"n": 3})) != "permit"
    with gate.task("looking", agent="bot", on_behalf_of="alice"):
        assert reason(gate, ToolCall(LOOK, {"n": 2})) == "permit"
        assert reason(gate, ToolCall(LOOK, {"n": 4})) == "grant_limit"


def test_a_task_of_the_settings_is_no_process_task(tmp_path: Path) -> None:
    (tmp_path / "lictor.toml").write_text("""
process = { task = "t", agent = "bot", user = "alice" }
[users.alice]
[agents.bot]
[tasks.t]
""")
    gate = Gate.dev(tmp_path)

    assert gate.process is not None
    assert gate.process.grant.template == ""
    assert gate.process.grant.agents != ("bot",)


def test_settings_that_demand_verified_identities_leave_nothing_to_run(tmp_path: Path) -> None:
    (tmp_path / "lictor.toml").write_text("require_verified = true\n")
    review(tmp_path, LOOK)

    assert reason(Gate.dev(tmp_path), ToolCall(LOOK, {"n": 1})) == "identity_unverified"


def test_the_user_is_the_account_not_what_the_environment_calls_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    import pwd

    for name in ("LOGNAME", "USER", "LNAME", "USERNAME"):
        monkeypatch.setenv(name, "boss")
    gate = Gate.dev(tmp_path)

    assert gate.process is not None
    assert gate.process.grant.user == pwd.getpwuid(os.getuid()).pw_name


def test_an_account_without_a_name_is_its_number(monkeypatch: pytest.MonkeyPatch) -> None:
    import pwd

    from lictor.dev import account

    def unknown(uid: int) -> object:
        raise KeyError(uid)

    monkeypatch.setattr(pwd, "getpwuid", unknown)
    assert account() == f"uid-{os.getuid()}"


# -- nobody to ask --------------------------------------------------------------------------------


def test_without_a_terminal_an_unreviewed_tool_is_denied_with_what_helps(tmp_path: Path) -> None:
    told = detail(Gate.dev(tmp_path), ToolCall(LOOK, {"n": 1}))

    assert "no terminal" in told
    assert "run: lictor review" in told
    assert "lictor watch" not in told  # there nobody can review
    assert not (tmp_path / "catalog.toml").exists()


def test_without_a_terminal_an_effect_is_denied_with_what_helps(tmp_path: Path) -> None:
    review(tmp_path, WIPE, Impact.DELETE)
    gate = Gate.dev(tmp_path)

    assert reason(gate, ToolCall(WIPE, {})) == "ask_unavailable"
    assert "run: lictor watch" in detail(gate, ToolCall(WIPE, {}))
    gate.close()
    lines = [line.body for line in audit.show(tmp_path / ".lictor/lictor.db", limit=100)]
    assert all("run: lictor watch" in e["detail"] for e in lines if e["kind"] == "decision")
    assert not [each for each in lines if each["kind"] == "ask"]  # nobody was asked


def test_arguments_that_no_call_can_have_disturb_nobody(tmp_path: Path) -> None:
    gate = Gate.dev(tmp_path)

    assert reason(gate, ToolCall(LOOK, {"n": float("nan")})) == "input_invalid"
    assert reason(gate, ToolCall(LOOK, {"n": object()})) == "input_invalid"


# -- the process's task ---------------------------------------------------------------------------


def test_calls_without_a_task_run_under_the_process_task_in_any_thread(tmp_path: Path) -> None:
    review(tmp_path, LOOK)
    gate = Gate.dev(tmp_path)
    found: list[object] = []

    def body(arguments: dict[str, object]) -> None:
        found.append(current())

    thread = threading.Thread(target=gate.run, args=(ToolCall(LOOK, {"n": 1}), body))
    thread.start()
    thread.join()
    gate.run(ToolCall(LOOK, {"n": 2}), body)

    assert found == [gate.process, gate.process]
    assert current() is None


def test_an_open_task_comes_before_the_process_task(tmp_path: Path) -> None:
    (tmp_path / "lictor.toml").write_text("[users.alice]\n[agents.bot]\n")
    review(tmp_path, LOOK)
    gate = Gate.dev(tmp_path)

    with gate.task(agent="bot", on_behalf_of="alice", tools=["wipe"]) as task:
        assert gate.current() is task
        assert reason(gate, ToolCall(LOOK, {"n": 1})) == "grant_scope"
    with gate.task(agent="bot", on_behalf_of="alice", tools=["look"]) as task:
        task.end()
        assert reason(gate, ToolCall(LOOK, {"n": 1})) == "task_ended"


def test_its_agent_is_the_program_and_its_assurance_dev(tmp_path: Path) -> None:
    gate = Gate.dev(tmp_path)
    assert gate.process is not None
    assert gate.process.assurance == "dev"
    assert gate.process.grant.agents != ()
    gate.close()

    (begun, ended) = [
        line.body
        for line in audit.show(tmp_path / ".lictor/lictor.db", limit=10)
        if line.body["kind"] == "task"
    ]
    assert (begun["verdict"], ended["verdict"]) == ("running", "ended")
    assert (begun["assurance"], ended["assurance"]) == ("dev", "dev")


def test_what_other_agents_do_for_it_is_development_too(tmp_path: Path) -> None:
    (tmp_path / "lictor.toml").write_text("""
[users.alice]
[agents.helper]
owner = "alice"
[tasks.looking]
tools = ["look"]
""")
    review(tmp_path, LOOK)
    gate = Gate.dev(tmp_path)
    assert gate.process is not None

    with gate.process.here():
        with gate.process.delegate("helper", tools=["look"]) as child:
            assert child.assurance == "dev"
            assert reason(gate, ToolCall(LOOK, {"n": 1})) == "permit"
            assert reason(gate, ToolCall(WIPE, {})) == "tool_unreviewed"
        with gate.process.start("looking", agent="helper") as child:
            assert child.assurance == "dev"
            assert reason(gate, ToolCall(LOOK, {"n": 1})) == "permit"
    assert gate.process.reading().assurance == "dev"


def test_the_process_task_ends_with_its_gate_and_its_children(tmp_path: Path) -> None:
    review(tmp_path, LOOK)
    gate = Gate.dev(tmp_path)
    task = gate.process
    assert task is not None
    child = task.reading()
    gate.close()

    assert (task.state, child.state) == ("ended", "ended")
    with pytest.raises(TaskError):
        task.reading()


def test_nobody_is_asked_about_a_tool_for_a_task_that_has_ended(tmp_path: Path) -> None:
    class Reviewing:
        asked = 0

        def review(self, *given: object) -> str:
            self.asked += 1
            return ""

    gate, reviewing = Gate.dev(tmp_path), Reviewing()
    gate._stages.reviewer = reviewing
    assert reason(gate, ToolCall(LOOK, {"n": 1})) == "tool_unreviewed"
    assert gate.process is not None
    gate.process.end()
    assert reason(gate, ToolCall(LOOK, {"n": 1})) == "task_ended"

    assert reviewing.asked == 1


def test_a_model_is_offered_what_a_person_would_review_when_it_is_called(tmp_path: Path) -> None:
    gate = Gate.dev(tmp_path)

    assert gate.visible([LOOK, WIPE]) == {LOOK.key, WIPE.key}
