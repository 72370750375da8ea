"""Ways for an agent to get at the gate's own home, each tried on a real project."""

from __future__ import annotations

import os
import re
import shutil
import site
import socket
import sqlite3
import subprocess
import sys
import zipfile
from collections.abc import Callable, Iterator, Mapping
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest

import lictor
from lictor import ConfigError, Denied, Gate, StoreError, TaskError, ToolCall
from lictor.catalog import lock
from lictor.helpers.files import NotBeneath, open_beneath
from lictor.model import Impact, Mode, Tool
from lictor.protect import Protected
from lictor.testing import UnsafeApprovals, reviewed, tool_of

TEXT = {"type": "string"}
LIST = {"type": "array", "items": {"type": "string"}}
WRITE = tool_of("write", {"path": TEXT, "text": TEXT, "name": TEXT})
READ = tool_of("read", {"path": TEXT})
MOVE = tool_of("move", {"old": TEXT, "new": TEXT})
LINK = tool_of("link", {"old": TEXT, "new": TEXT})
UNPACK = tool_of("unpack", {"archive": TEXT, "folder": TEXT})
QUERY = tool_of("query", {"database": TEXT, "sql": TEXT})
GIT = tool_of("git", {"words": LIST})
SHELL = tool_of("shell", {"command": TEXT})
DELETE = tool_of("delete", {"path": TEXT})
MAIL = tool_of("mail", {"to": TEXT})
TOOLS = [
    (WRITE, "write"), (READ, "read"), (MOVE, "write"), (LINK, "write"), (UNPACK, "write"),
    (QUERY, "write"), (GIT, "write"), (SHELL, "execute"), (DELETE, "delete"),
]  # fmt: skip
TOML = """\
[agents.bot]
owner = "alice"
[users.alice]
[tasks.all]
tools = ["write", "read", "move", "link", "unpack", "query", "git", "shell", "delete"]
"""


class Agent:
    """An agent with file tools that really do what they are asked to, beside its own gate."""

    def __init__(self, folder: Path, *, isolation: str = "") -> None:
        self.folder = folder
        self.toml = folder / "lictor.toml"
        (folder / "policies").mkdir()
        (folder / "policies" / "own.cedar").write_text(
            '@id("own") forbid (principal, action, resource) when { context.autonomous };'
        )
        self.toml.write_text(TOML)
        lock(folder / "catalog.toml", folder / "catalog.lock", {t.key: t for t, _ in TOOLS})
        text = (folder / "catalog.toml").read_text()
        for tool, impact in TOOLS:
            more = f'\nisolation = "{isolation}"' if impact == "execute" else ""
            text = re.sub(
                rf'(name = "{tool.key.name}"\n(?:.*\n)*?)impact = \[\]',
                rf'\1impact = ["{impact}"]{more}',
                text,
            )
        (folder / "catalog.toml").write_text(text)
        self.gate = Gate.from_file(self.toml, approvals=UnsafeApprovals())
        self.before = self.state()

    def state(self) -> dict[str, bytes]:
        """What decides, as it is on disk."""
        files = [self.toml, self.folder / "catalog.toml", self.folder / "catalog.lock"]
        files += sorted((self.folder / "policies").iterdir())
        files.append(self.folder / ".lictor" / "record.key")
        return {str(file): file.read_bytes() for file in files}

    def do(self, tool: Tool, /, **arguments: Any) -> str:
        with self.gate.task("all", agent="bot", on_behalf_of="alice", session="s"):
            try:
                self.gate.run(ToolCall(tool, arguments), BODIES[tool.key.name])
            except Denied as denied:
                return denied.decision.reason
        return "permit"

    def look(self) -> None:
        assert self.gate._watchman is not None
        self.gate._watchman.tick()


def write(args: Mapping[str, Any]) -> None:
    Path(args["path"]).expanduser().write_text(args.get("text", "evil"))


def unpack(args: Mapping[str, Any]) -> None:
    with zipfile.ZipFile(args["archive"]) as archive:
        archive.extractall(args["folder"])


def query(args: Mapping[str, Any]) -> None:
    with closing(sqlite3.connect(args["database"])) as db:
        db.execute(args["sql"])
        db.commit()


BODIES: dict[str, Callable[[dict[str, Any]], object]] = {
    "write": write,
    "read": lambda args: Path(args["path"]).read_bytes(),
    "move": lambda args: shutil.move(args["old"], args["new"]),
    "link": lambda args: os.symlink(args["old"], args["new"]),
    "unpack": unpack,
    "query": query,
    "git": lambda args: subprocess.run(["git", *args["words"]], check=True, capture_output=True),
    "shell": lambda args: subprocess.run(args["command"], shell=True, check=True),
    "delete": lambda args: shutil.rmtree(args["path"]),
}


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    made, home = tmp_path / "app", tmp_path / "home"
    made.mkdir()
    (home / ".config" / "Claude").mkdir(parents=True)
    monkeypatch.setenv("HOME", str(home))
    monkeypatch.chdir(home)
    return made


@pytest.fixture
def agent(folder: Path) -> Iterator[Agent]:
    made = Agent(folder)
    yield made
    made.gate.close()


OURS = [
    "lictor.toml",
    "catalog.toml",
    "catalog.lock",
    "policies/mine.cedar",
    "policies",
    ".lictor/lictor.db",
    ".lictor/lictor.db-wal",
    ".lictor/lictor.db-shm",
    ".lictor/lictor.db.lock",
    ".lictor/record.key",
    ".lictor/watch.lock",
    ".lictor/seen.json",
    ".lictor",
]


# -- X70: files that decide -----------------------------------------------------------------------


@pytest.mark.attack("X70")
@pytest.mark.parametrize("name", OURS)
@pytest.mark.parametrize(
    "way",
    ["{app}/{name}", "{app}/policies/../{name}", "../app/{name}", "/proc/self/cwd/../app/{name}",
     "/proc/self/root{app}/{name}", "file://{app}/{name}", "$HOME/../app/{name}",
     "~/../app/{name}", "{APP}/{NAME}", "./{name}"],
)  # fmt: skip
def test_a_file_tool_does_not_write_what_decides(agent: Agent, name: str, way: str) -> None:
    app = str(agent.folder)
    path = way.format(app=app, APP=app.upper(), name=name, NAME=name.upper())
    assert agent.do(WRITE, path=path, text="evil") == "protected"
    assert agent.state() == agent.before


@pytest.mark.attack("X70")
@pytest.mark.parametrize("name", [".lictor/record.key", ".lictor/lictor.db", "lictor.toml"])
def test_a_file_tool_does_not_read_the_key_and_the_store(agent: Agent, name: str) -> None:
    assert agent.do(READ, path=str(agent.folder / name)) == "protected"


@pytest.mark.attack("X70")
def test_a_folder_and_a_name_apart_are_met_too(agent: Agent) -> None:
    assert agent.do(WRITE, path=str(agent.folder), name="lictor.toml", text="x") == "protected"


@pytest.mark.attack("X70")
@pytest.mark.parametrize(
    "place",
    [
        *site.getsitepackages(),
        sys.prefix,
        site.getusersitepackages(),
        str(Path(lictor.__file__).parent),
    ],
)
@pytest.mark.parametrize("file", ["x.pth", "sitecustomize.py", "usercustomize.py", "errors.py"])
def test_nothing_is_put_where_python_looks_first(agent: Agent, place: str, file: str) -> None:
    assert agent.do(WRITE, path=f"{place}/{file}", text="import evil") == "protected"


@pytest.mark.attack("X70")
def test_a_start_file_of_python_is_met_wherever_it_is_put(agent: Agent) -> None:
    path = str(agent.folder.parent / "lib" / "sitecustomize.py")
    assert agent.do(WRITE, path=path, text="import evil") == "protected"


@pytest.mark.attack("X70")
@pytest.mark.parametrize(
    "path",
    [
        "~/.config/Claude/claude_desktop_config.json",
        "~/Library/Application Support/Claude/claude_desktop_config.json",
        "~/.claude.json",
        "~/.claude/settings.json",
        "~/.cursor/mcp.json",
        "~/.config/Code/User/mcp.json",
        "~/.codeium/windsurf/mcp_config.json",
        "~/.gemini/settings.json",
        "~/.codex/config.toml",
        "{app}/.mcp.json",
        "{app}/.vscode/mcp.json",
        "{app}/.cursor/mcp.json",
        "{app}/.env",
        "~/.bashrc",
        "~/.zshrc",
        "~/.profile",
        "~/.bash_profile",
        "~/.config/fish/config.fish",
        "~/.config/autostart/evil.desktop",
        "~/.ssh/authorized_keys",
        "{app}/.git/hooks/post-checkout",
        "{app}/.git/config",
        "{app}/../.git/hooks/pre-commit",
        "/proc/self/mem",
        ".bashrc",
    ],
)
def test_what_starts_programs_is_not_written(agent: Agent, path: str) -> None:
    assert agent.do(WRITE, path=path.format(app=agent.folder), text="evil") == "protected"


@pytest.mark.attack("X70")
def test_what_starts_programs_may_be_read_and_memory_may_not(agent: Agent) -> None:
    (Path.home() / ".bashrc").write_text("alias ll='ls -l'\n")
    assert agent.do(READ, path=str(Path.home() / ".bashrc")) == "permit"
    assert agent.do(READ, path="/proc/self/mem") == "protected"
    assert agent.do(READ, path=f"/proc/{os.getpid()}/environ") == "protected"


@pytest.mark.attack("X70")
def test_a_link_made_by_an_earlier_call_leads_there_no_more_than_its_target(agent: Agent) -> None:
    """Linking to the folder is let through; what then goes through the link is not."""
    assert agent.do(LINK, old=str(agent.folder), new="way") == "permit"
    assert agent.do(WRITE, path="way/lictor.toml", text="evil") == "protected"
    assert agent.do(LINK, old=str(agent.toml), new="direct") == "protected"
    assert agent.state() == agent.before


@pytest.mark.attack("X70", "X23")
def test_a_link_swapped_in_after_the_check_is_stopped_by_the_helper(agent: Agent) -> None:
    """The check before the call cannot see it; a body that opens beneath its folder does."""
    data = agent.folder.parent / "data"
    data.mkdir()

    def body(args: dict[str, Any]) -> None:
        (data / "out.txt").symlink_to(agent.toml)  # meanwhile, by somebody else
        with open_beneath(data, "out.txt", "w") as file:
            file.write(args["text"])

    with (
        agent.gate.task("all", agent="bot", on_behalf_of="alice", session="s"),
        pytest.raises(NotBeneath),
    ):
        agent.gate.run(ToolCall(WRITE, {"path": str(data / "out.txt"), "text": "evil"}), body)
    assert agent.state() == agent.before


@pytest.mark.attack("X70")
def test_a_second_name_of_a_file_is_met(agent: Agent) -> None:
    os.link(agent.toml, agent.folder.parent / "twin")
    assert agent.do(WRITE, path=str(agent.folder.parent / "twin"), text="evil") == "protected"
    assert agent.state() == agent.before


@pytest.mark.attack("X70")
def test_nothing_is_renamed_over_it_or_away(agent: Agent) -> None:
    Path("evil.toml").write_text("evil")
    assert agent.do(MOVE, old="evil.toml", new=str(agent.toml)) == "protected"
    assert agent.do(MOVE, old=str(agent.folder / ".lictor"), new="stolen") == "protected"
    assert agent.do(DELETE, path=str(agent.folder)) == "protected"
    assert agent.state() == agent.before


@pytest.mark.attack("X70")
@pytest.mark.parametrize(
    "pattern",
    ["{app}/.licto?/*", "{app}/*.toml", "{app}/{{lictor,catalog}}.toml", "{app}/policie[s]/x",
     "{app}/**/*.toml", "{up}/a*/lictor.toml", "~/../app/*.lock", "~/.bash*", "*.toml",
     "{app}/.*/record.key", "{app}/" + "{{a,b}}" * 7],
)  # fmt: skip
def test_a_pattern_that_could_match_it_is_met(agent: Agent, pattern: str) -> None:
    path = pattern.format(app=agent.folder, up=agent.folder.parent)
    assert agent.do(WRITE, path=path, text="evil") == "protected"


@pytest.mark.attack("X70")
@pytest.mark.parametrize("pattern", ["{app}/.licto?/*", "{app}/.*/record.key", ".lictor/l*"])
def test_a_pattern_that_could_match_the_key_or_store_is_not_read(
    agent: Agent, pattern: str
) -> None:
    assert agent.do(READ, path=pattern.format(app=agent.folder)) == "protected"


@pytest.mark.attack("X70")
def test_the_store_is_not_opened_by_another_program(agent: Agent) -> None:
    store = agent.folder / ".lictor" / "lictor.db"
    change = "UPDATE approval SET state = 'granted'"
    for database in (str(store), f"sqlite:///{store}", f"sqlite:////{store}?mode=rw"):
        assert agent.do(QUERY, database=database, sql=change) == "protected", database


@pytest.mark.attack("X70")
def test_git_does_not_put_another_file_there(agent: Agent) -> None:
    for words in (["checkout", "evil", "--", "lictor.toml"], ["apply", f"{agent.folder}/policies"]):
        assert agent.do(GIT, words=words) == "protected"


def rewritten_by_an_archive(agent: Agent) -> str:
    """The archive says what it holds only when it is opened: no argument leads anywhere."""
    with zipfile.ZipFile("evil.zip", "w") as archive:
        archive.writestr("lictor.toml", TOML + "[users.mallory]\n")
    return agent.do(UNPACK, archive=str(Path("evil.zip").resolve()), folder=str(agent.folder))


def rewritten_by_git(agent: Agent) -> str:
    """A branch that has another `lictor.toml`."""
    where = ["-C", str(agent.folder), "-c", "user.name=x", "-c", "user.email=x@x"]

    def git(*words: str) -> None:
        subprocess.run(["git", *where, *words], check=True, capture_output=True)

    git("init", "-b", "main")
    git("add", "lictor.toml")
    git("commit", "-m", "ours")
    git("checkout", "-b", "evil")
    agent.toml.write_text(TOML + "[users.mallory]\n")
    git("commit", "-a", "-m", "theirs")
    git("checkout", "main")
    return agent.do(GIT, words=[*where, "checkout", "evil"])


@pytest.mark.attack("X70")
@pytest.mark.parametrize("way", [rewritten_by_an_archive, rewritten_by_git])
def test_what_no_argument_shows_gains_nothing_and_stops_effects(
    agent: Agent, way: Callable[[Agent], str]
) -> None:
    assert way(agent) == "permit"  # the limit that docs/hardening.md tells
    assert "mallory" in agent.toml.read_text()
    agent.look()

    with pytest.raises(TaskError, match="mallory"):
        agent.gate.task("all", agent="bot", on_behalf_of="mallory")
    assert agent.do(WRITE, path="notes.txt", text="x") == "config_changed"
    assert agent.do(READ, path="/etc/hostname") in ("permit", "config_changed")
    agent.toml.write_bytes(agent.before[str(agent.toml)])
    agent.look()
    assert agent.do(WRITE, path="notes.txt", text="x") == "permit"


@pytest.mark.attack("X70")
@pytest.mark.parametrize("root", [".", "..", "policies"])
def test_a_tool_whose_own_folder_holds_it_makes_no_gate(agent: Agent, root: str) -> None:
    """So that an archive has nowhere to be unpacked over it."""
    catalog = agent.folder / "catalog.toml"
    text = catalog.read_text().replace(
        'impact = ["write"]', f'impact = ["write"]\nroots = ["{root}"]'
    )
    catalog.write_text(text)
    with pytest.raises(ConfigError, match="roots"):
        Gate.from_file(agent.toml)


@pytest.mark.attack("X70")
@pytest.mark.parametrize(
    "name",
    ["lictor.toml", "catalog.toml", "catalog.lock", "policies", ".lictor", ".lictor/lictor.db",
     ".lictor/record.key"],
)  # fmt: skip
@pytest.mark.parametrize("how", ["link", "open"])
def test_a_home_that_somebody_has_made_a_way_into_makes_no_gate(
    agent: Agent, name: str, how: str
) -> None:
    agent.gate.close()
    place = agent.folder / name
    if how == "link":
        place.rename(agent.folder.parent / "elsewhere")
        place.symlink_to(agent.folder.parent / "elsewhere")
    else:
        place.chmod(0o777)
    with pytest.raises((ConfigError, StoreError)) as caught:
        Gate.from_file(agent.toml)
    assert "mend:" in str(caught.value)


@pytest.mark.attack("X70")
def test_a_state_folder_that_leads_elsewhere_gets_no_key(agent: Agent) -> None:
    agent.gate.close()
    shutil.rmtree(agent.folder / ".lictor")
    trap = agent.folder.parent / "trap"
    trap.mkdir()
    (agent.folder / ".lictor").symlink_to(trap)
    with pytest.raises(ConfigError, match="link"):
        Gate.from_file(agent.toml)
    assert list(trap.iterdir()) == []


# -- X66, X70: its own shell ----------------------------------------------------------------------


@pytest.mark.attack("X66", "X70")
def test_a_shell_in_the_agents_own_process_does_not_run(agent: Agent) -> None:
    assert agent.do(SHELL, command="lictor catalog lock --accept local/write") == "tool_isolation"


@pytest.mark.attack("X66")
def test_a_command_that_decides_refuses_under_the_agents_shell(folder: Path) -> None:
    """Said to be isolated, and not: the body starts `lictor` in a shell of its own."""
    agent = Agent(folder, isolation="container")
    done: list[subprocess.CompletedProcess[str]] = []

    def body(args: dict[str, Any]) -> None:
        done.append(
            subprocess.run(args["command"], shell=True, capture_output=True, text=True, check=False)
        )

    program = f"cd ../app && '{Path(sys.executable).parent / 'lictor'}'"
    try:
        with agent.gate.task("all", agent="bot", on_behalf_of="alice", session="s"):
            for words in ("catalog lock", "review"):
                agent.gate.run(ToolCall(SHELL, {"command": f"{program} {words}"}), body)
    finally:
        agent.gate.close()
    for each in done:
        assert each.returncode != 0
        assert "whose calls the gate decides" in each.stdout + each.stderr


@pytest.mark.attack("X70")
@pytest.mark.parametrize(
    "command",
    ["echo evil > {app}/lictor.toml", "cp evil '{app}/policies/x.cedar'", "sqlite3 {db} 'select 1'",
     "cat<{app}/.lictor/record.key", "echo evil>>~/.bashrc", "tee {app}/*.toml"],
)  # fmt: skip
def test_the_words_of_a_command_are_looked_at(folder: Path, command: str) -> None:
    agent = Agent(folder, isolation="container")
    text = command.format(app=folder, db=folder / ".lictor" / "lictor.db")
    try:
        assert agent.do(SHELL, command=text) == "protected"
        assert agent.do(SHELL, command="echo hello world > note.txt") == "permit"
    finally:
        agent.gate.close()


# -- X71: surroundings that the agent made --------------------------------------------------------


@pytest.mark.attack("X71")
def test_files_of_the_working_directory_decide_nothing(agent: Agent) -> None:
    Path("lictor.toml").write_text('mode = "observe"\n[agents.bot]\nowner = "eve"\n[users.eve]\n')
    Path(".env").write_text("LICTOR_MODE=observe\nLICTOR_PROFILE=local\n")
    Path("catalog.toml").write_text("")
    agent.gate.close()

    with Gate.from_file(agent.toml, approvals=UnsafeApprovals()) as gate:
        assert gate._stages.mode is Mode.ENFORCE
        with pytest.raises(TaskError):
            gate.task(agent="bot", on_behalf_of="eve")
    with pytest.raises(ConfigError, match="relative"):
        Gate.from_file("lictor.toml")


@pytest.mark.attack("X71")
@pytest.mark.parametrize(
    "name", ["LICTOR_MODE", "LICTOR_PROFILE", "LICTOR_CONFIG", "LICTOR_PRODUCTION", "LICTOR_STATE"]
)
def test_variables_loosen_nothing(agent: Agent, monkeypatch: pytest.MonkeyPatch, name: str) -> None:
    agent.gate.close()
    agent.toml.write_text('profile = "production"\n' + TOML)
    for value in ("", "0", "false", "observe", "local", str(Path.cwd())):
        monkeypatch.setenv(name, value)
        with Gate.from_file(agent.toml) as gate:
            assert gate._stages.mode is Mode.ENFORCE
            assert gate._stages.require_verified
            assert str(gate.store.path).startswith(str(agent.folder))  # type: ignore[attr-defined]


@pytest.mark.attack("X71")
def test_python_paths_and_certificates_set_by_a_body_do_not_reach_the_running_gate(
    agent: Agent, monkeypatch: pytest.MonkeyPatch
) -> None:
    """They are read when a program starts; the gate starts none and fetches nothing."""
    evil = Path("evil")
    evil.mkdir()
    for name in ("cedarpy", "lictor", "sqlite3", "yaml"):
        (evil / f"{name}.py").write_text("raise SystemExit('owned')")
    names = "PYTHONPATH", "PYTHONSTARTUP", "SSL_CERT_FILE", "REQUESTS_CA_BUNDLE"
    for name in names:
        monkeypatch.delenv(name, raising=False)

    def body(args: dict[str, Any]) -> None:
        for name in names:
            os.environ[name] = str(evil.resolve())

    with agent.gate.task("all", agent="bot", on_behalf_of="alice", session="s"):
        agent.gate.run(ToolCall(WRITE, {"path": "a", "text": "b"}), body)
    try:
        assert agent.do(WRITE, path=str(agent.toml)) == "protected"
        assert agent.do(WRITE, path="notes.txt", text="x") == "permit"
    finally:
        for name in names:
            os.environ.pop(name, None)


@pytest.mark.attack("X71")
def test_modules_in_the_working_directory_are_not_taken_for_ours(folder: Path) -> None:
    evil = folder.parent / "evil"
    evil.mkdir()
    for name in ("cedarpy", "lictor", "typer", "sqlalchemy", "tomllib"):
        (evil / f"{name}.py").write_text("raise SystemExit('owned')")
    script = shutil.which("lictor", path=str(Path(sys.executable).parent))
    assert script is not None
    done = subprocess.run([script, "--help"], cwd=evil, capture_output=True, text=True, check=False)
    assert done.returncode == 0
    assert "owned" not in done.stdout + done.stderr


@pytest.mark.attack("X71")
def test_exporter_variables_make_the_gate_connect_to_nobody(
    agent: Agent, monkeypatch: pytest.MonkeyPatch
) -> None:
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        listener.listen()
        listener.setblocking(False)
        url = f"http://127.0.0.1:{listener.getsockname()[1]}"
        for name in ("", "_TRACES", "_LOGS", "_METRICS"):
            monkeypatch.setenv(f"OTEL_EXPORTER_OTLP{name}_ENDPOINT", url)
        monkeypatch.setenv("OTEL_TRACES_EXPORTER", "otlp")
        agent.gate.close()
        with Gate.from_file(agent.toml, approvals=UnsafeApprovals()) as gate:
            agent.gate = gate
            assert agent.do(WRITE, path="notes.txt", text="x") == "permit"
        with pytest.raises(BlockingIOError):
            listener.accept()


# -- X73: observe mode ----------------------------------------------------------------------------


@pytest.mark.attack("X73")
def test_observing_lets_no_expired_task_go_on(world: Callable[..., Any]) -> None:
    now = [1_000_000.0]
    w = world(mode=Mode.OBSERVE, clock=lambda: now[0])
    with w.task(expires_in=60):
        assert w.try_(w.call(w.mail, to="a")) == "permit"
        now[0] += 61
        assert w.try_(w.call(w.mail, to="b")) == "grant_expired"
        assert w.try_(w.call(w.look, n=1)) == "grant_expired"
    assert len(w.runs) == 1


@pytest.mark.attack("X73")
def test_observing_lets_no_foreign_tenants_tool_be_called(world: Callable[..., Any]) -> None:
    theirs = reviewed(MAIL, "send", tenant="other")
    w = world(theirs, mode=Mode.OBSERVE)
    with w.task(tools=["mail"]):
        assert w.try_(ToolCall(MAIL, {"to": "a"})) == "tenant"
    assert w.runs == []


@pytest.mark.attack("X73")
def test_observing_lets_nobody_of_another_tenant_be_acted_for(world: Callable[..., Any]) -> None:
    settings = {"users": {"alice": {}, "eve": {"tenant": "other"}}}
    w = world(mode=Mode.OBSERVE, settings=settings)
    with pytest.raises(TaskError, match="tenants differ"):
        w.task(on_behalf_of="eve")
    with pytest.raises(TaskError, match="tenants differ"):
        w.task(on_behalf_of="alice", tenant="other")


@pytest.mark.attack("X73")
def test_observing_lets_nothing_into_our_home_and_nothing_under_changed_files(
    folder: Path,
) -> None:
    agent = Agent(folder)
    agent.gate.close()
    agent.toml.write_text('mode = "observe"\n' + TOML)
    (folder / "policies" / "own.cedar").write_text(
        '@id("no") forbid (principal, action, resource);'
    )
    with Gate.from_file(agent.toml, approvals=UnsafeApprovals()) as gate:
        agent.gate = gate
        assert agent.do(WRITE, path="notes.txt", text="x") == "permit"  # it would be denied
        assert agent.do(WRITE, path=str(agent.toml), text="x") == "protected"
        agent.toml.write_text(TOML + "[users.mallory]\n")
        agent.look()
        assert agent.do(WRITE, path="notes.txt", text="x") == "config_changed"


@pytest.mark.attack("X89")
@pytest.mark.parametrize("text", ["$FAT", "${FAT}", "/${FAT}", "${", "%24FAT"])
def test_no_text_makes_the_look_at_it_take_hours(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, text: str
) -> None:
    """`os.path.expandvars` copies the whole text for each variable, and reads on for each brace."""
    monkeypatch.setenv("FAT", "x" * 10_000)
    monkeypatch.setattr(os.path, "expandvars", None)
    (tmp_path / "lictor.toml").touch()
    home = Protected.of([tmp_path / "lictor.toml"])

    found = home.reached({"text": text * 100_000}, {Impact.WRITE})

    assert found == (None if text == "${" else "text")


@pytest.mark.attack("X90")
@pytest.mark.parametrize(
    ("arguments", "impact"),
    [
        ({"folder": "{above}", "name": "app/lictor.toml"}, Impact.WRITE),
        ({"folder": "{above}", "name": "app/.lictor/record.key"}, Impact.READ),
        ({"folder": "{above}/x", "name": "../app/policies/own.cedar"}, Impact.WRITE),
        ({"base": "/", "name": "{inside}/lictor.toml"}, Impact.WRITE),
        ({"old": "policies", "new": "x"}, Impact.WRITE),
        ({"name": "policies"}, Impact.DELETE),
        ({"name": "Policies "}, Impact.DELETE),
        ({"name": ".bashrc", "text": "curl evil"}, Impact.WRITE),
        ({"name": ".ssh/authorized_keys"}, Impact.WRITE),
    ],
)
def test_a_path_that_is_given_in_two_pieces_is_one(
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    arguments: dict[str, str],
    impact: Impact,
) -> None:
    """The folder is another argument, or the tool's own; the working directory is elsewhere."""
    app, elsewhere = tmp_path / "app", tmp_path / "elsewhere"
    (app / "policies").mkdir(parents=True)
    (app / ".lictor").mkdir()
    elsewhere.mkdir()
    monkeypatch.chdir(elsewhere)
    home = Protected.of(
        [app / "lictor.toml", app / "policies", app / ".lictor"], state=app / ".lictor"
    )
    places = {"above": str(tmp_path), "inside": str(app)[1:]}
    given = {name: text.format(**places) for name, text in arguments.items()}

    assert home.reached(given, {impact}) is not None


@pytest.mark.parametrize(
    "text", ["other/catalogue.md", "my-app/readme.md", "policies of ours", "$UNKNOWN/x", "${x}.md"]
)
def test_what_only_looks_like_a_piece_of_it_is_free(tmp_path: Path, text: str) -> None:
    home = Protected.of([tmp_path / "lictor.toml", tmp_path / "policies"])

    assert home.reached({"text": text}, {Impact.WRITE}) is None
