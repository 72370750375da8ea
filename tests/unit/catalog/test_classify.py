"""Writing down one decision: only what was decided, or nothing at all."""

from __future__ import annotations

import json
import subprocess
import sys
import threading
from collections.abc import Mapping
from pathlib import Path

import pytest

from lictor.catalog import Catalog, Decided, classify, lock, locking
from lictor.errors import ConfigError
from lictor.model import Impact, Review, Tool, ToolKey
from lictor.ports import Known
from lictor.testing import reviewed, tool_of

PAY = tool_of(
    "pay", {"to": {"type": "string"}, "amount": {"type": "number"}}, required=["to", "amount"]
)
LOOK = tool_of("look", {"n": {"type": "integer"}})
AT = "2026-11-24T10:00:00+00:00"
READ = Decided(frozenset({Impact.READ}), "alice", AT, reviewed_in="dev")
TRANSFER = Decided(
    frozenset({Impact.TRANSFER}),
    "alice",
    AT,
    target=("to",),
    amount="amount",
    recordable=("to", "amount"),
    reviewed_in="dev",
)
MINE = """\
# mine

[[tool]]
  server = "local"
name = "pay"    # the money
impact = [      # who knows
  "write",
]   # ask ops
formats = { to = "email" }
"recordable" = ["amount"]
reviewed_at = 2026-11-24 # once
pin = "PAYPIN"

# the end of pay

[servers.local]
tenant = "acme"

[[tool]]
name = "other"
server = "x"   # "pay"
"""


class Files:
    def __init__(self, folder: Path) -> None:
        self.toml, self.lock = folder / "catalog.toml", folder / "catalog.lock"

    def write(self, text: str = MINE) -> Files:
        self.toml.write_bytes(text.replace("PAYPIN", PAY.pin).encode())
        self.lock.write_text(json.dumps({"v": 1, "tools": {"local/pay": PAY.definition()}}))
        return self

    def classify(self, tool: Tool = PAY, decided: Decided = TRANSFER) -> Known:
        return classify(self.toml, self.lock, tool, decided)

    def load(self, *, production: bool = False) -> Catalog:
        return Catalog.load(self.toml, self.lock, production=production)

    def bytes(self) -> list[bytes | None]:
        return [path.read_bytes() if path.exists() else None for path in (self.toml, self.lock)]


@pytest.fixture
def files(tmp_path: Path) -> Files:
    return Files(tmp_path)


def test_a_decision_needs_no_file_and_loads_as_it_was_made(files: Files) -> None:
    known = files.classify()

    assert files.load().known(PAY.key) == known
    assert known.tool == PAY
    review = known.review
    assert (review.impact, review.target, review.amount) == ({Impact.TRANSFER}, ("to",), "amount")
    assert (review.recordable, review.reviewer) == (("to", "amount"), "alice")
    assert (review.reviewed_at, review.reviewed_in) == (AT, "dev")


def test_a_dev_decision_is_no_review_in_production(files: Files) -> None:
    files.classify()

    assert files.load(production=True).check(PAY) == "tool_unreviewed"


def test_a_read_keeps_its_labels_and_its_sources(files: Files) -> None:
    decided = Decided(
        frozenset({Impact.READ}),
        "alice",
        AT,
        produces=frozenset({"untrusted", "sensitive"}),
        sources=frozenset({"outsiders"}),
    )

    review = files.classify(LOOK, decided).review

    assert review.produces == {"untrusted", "sensitive"}
    assert review.sources == {"outsiders"}


def test_every_other_byte_of_the_file_stays(files: Files) -> None:
    files.write().classify()

    text = files.toml.read_text()
    assert text == MINE.replace("PAYPIN", PAY.pin).replace(
        'impact = [      # who knows\n  "write",\n]   # ask ops\n',
        'impact = ["transfer"]   # ask ops\n',
    ).replace('"recordable" = ["amount"]\n', 'recordable = ["to", "amount"]\n').replace(
        "reviewed_at = 2026-11-24 # once\n", f'reviewed_at = "{AT}" # once\n'
    ).replace(
        f'pin = "{PAY.pin}"\n',
        f'pin = "{PAY.pin}"\ntarget = ["to"]\namount = "amount"\nreviewer = "alice"\n'
        'reviewed_in = "dev"\n',
    )


def test_what_the_owner_wrote_beside_the_decision_counts(files: Files) -> None:
    known = files.write().classify()

    assert known.review.formats == {"to": "email"}
    assert known.review.tenant == "acme"


def test_the_line_ends_of_the_file_stay(files: Files) -> None:
    text = MINE.replace("\n", "\r\n")
    files.write(text).classify(LOOK, READ)
    files.classify(PAY)

    written = files.toml.read_bytes().decode()
    assert "\n" not in written.replace("\r\n", "")
    assert files.load().check(LOOK) is None


def test_a_file_that_ends_without_a_line_end_is_continued(files: Files) -> None:
    files.write(MINE.rstrip("\n")).classify(LOOK, READ)

    assert files.load().check(LOOK) is None


def test_a_later_decision_takes_the_place_of_the_earlier_one(files: Files) -> None:
    files.classify()
    files.classify(PAY, Decided(frozenset({Impact.WRITE}), "bob", AT))

    review = files.load().known(PAY.key)
    assert review is not None
    assert review.review == Review(
        PAY.key, frozenset({Impact.WRITE}), PAY.pin, reviewer="bob", reviewed_at=AT
    )


def test_a_changed_tool_is_pinned_anew_with_its_definition(files: Files) -> None:
    files.classify()
    changed = Tool.from_definition({**PAY.definition(), "description": "Pays twice."})
    files.classify(changed)

    assert files.load().check(changed) is None
    assert files.load().check(PAY) == "tool_changed"


def test_a_block_is_written_down_and_can_be_taken_back(files: Files) -> None:
    files.classify(PAY, Decided(frozenset(), "alice", AT, blocked=True))
    assert files.load().check(PAY) == "tool_blocked"

    files.classify()
    assert files.load().check(PAY) is None


@pytest.mark.parametrize(
    "text",
    [
        "[[tool]\n",
        MINE + '[[tool]]\nserver = "x"\nname = "other"\n',
        MINE.replace("formats =", "formast ="),
        MINE.replace('"write"', '"wirte"'),
        'tool = [{ server = "local", name = "pay" }]\n',
        'tool = "pay"\n',
        MINE.replace("[[tool]]", "[[ 'tool' ]]"),
    ],
)
@pytest.mark.parametrize("tool", [PAY, LOOK], ids=lambda tool: tool.key.name)
def test_a_file_edited_into_nonsense_is_refused_and_left_alone(
    files: Files, text: str, tool: Tool
) -> None:
    before = files.write(text).bytes()

    with pytest.raises(ConfigError, match=r"catalog\.toml"):
        files.classify(tool, READ)

    assert files.bytes() == before


@pytest.mark.parametrize("what", ["impact", "pin"])
def test_what_cannot_be_written_without_touching_something_else_is_not_written(
    files: Files, what: str
) -> None:
    hidden = f'credentials = ["""\n{what} = ["read"]\n"""]\nimpact = [ '
    before = files.write(MINE.replace("impact = [ ", hidden)).bytes()

    with pytest.raises(ConfigError, match="without touching something else"):
        files.classify()

    assert files.bytes() == before


def test_a_damaged_lock_is_refused_and_left_alone(files: Files) -> None:
    files.write().lock.write_text("{}")
    before = files.bytes()

    with pytest.raises(ConfigError, match=r"catalog\.lock"):
        files.classify()

    assert files.bytes() == before


@pytest.mark.parametrize(
    "parts",
    [
        {"target": ("nobody",)},
        {"amount": "nothing"},
        {"recordable": ("to", "secret")},
        {"produces": frozenset({"untrustd"})},
        {"produces": frozenset({"Un trusted"})},
    ],
)
def test_a_decision_that_does_not_fit_the_tool_is_not_written(
    files: Files, parts: Mapping[str, object]
) -> None:
    given = {"impact": frozenset({Impact.SEND}), "reviewer": "alice", "reviewed_at": AT, **parts}

    with pytest.raises(ConfigError):
        files.classify(PAY, Decided(**given))  # type: ignore[arg-type]

    assert files.bytes() == [None, None]


def test_a_destructive_tool_is_not_written_down_as_a_read(files: Files) -> None:
    tool = tool_of("drop", annotations={"destructiveHint": True})

    with pytest.raises(ConfigError, match="never lower"):
        files.classify(tool, READ)

    assert files.bytes() == [None, None]


@pytest.mark.parametrize("name", ['a"b', "a\\b", "é", 'x"\nimpact = ["read"]'])
def test_names_cannot_write_into_the_file(files: Files, name: str) -> None:
    decided = Decided(frozenset({Impact.SEND}), name, AT)
    tool = Tool(ToolKey("x", name.replace("\n", " ")), f'"""{name}\x1b[2J', PAY.input_schema)

    known = files.classify(tool, decided)

    assert known.review.reviewer == name
    assert [each.tool for each in files.load().known_tools()] == [tool]


@pytest.mark.parametrize("name", ["catalog.toml", "catalog.lock"])
def test_a_link_is_refused(files: Files, tmp_path: Path, name: str) -> None:
    (tmp_path / "elsewhere").write_text("")
    (tmp_path / name).symlink_to(tmp_path / "elsewhere")

    with pytest.raises(ConfigError, match="symbolic link"):
        files.classify()

    assert (tmp_path / "elsewhere").read_text() == ""


@pytest.mark.parametrize("which", ["catalog.toml", "catalog.lock"])
def test_a_folder_that_takes_nothing_gets_nothing(
    files: Files, monkeypatch: pytest.MonkeyPatch, which: str
) -> None:
    before = files.write().bytes()
    real = locking.write

    def full(path: Path, text: str, mode: int) -> None:
        if path.name == which:
            raise PermissionError(13, "Permission denied")
        real(path, text, mode)

    monkeypatch.setattr(locking, "write", full)
    with pytest.raises(ConfigError, match="cannot be written: Permission denied"):
        files.classify(LOOK, READ)

    assert [None if b is None else json.loads(b) for b in files.bytes()[1:]] == [
        json.loads(before[1] or b"")
    ]
    assert files.bytes()[0] == before[0]


def test_a_folder_that_is_not_there_is_named(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="cannot be opened"):
        Files(tmp_path / "gone").classify()


def _many(folder: Path, names: list[str]) -> None:
    for name in names:
        Files(folder).classify(tool_of(name, {"n": {"type": "integer"}}), READ)


ELSEWHERE = """
import sys
from pathlib import Path
from lictor.catalog import Decided, classify
from lictor.model import Impact
from lictor.testing import tool_of

folder = Path(sys.argv[1])
for name in sys.argv[2:]:
    decided = Decided(frozenset({Impact.READ}), "bob", "2026-11-24")
    tool = tool_of(name, {"n": {"type": "integer"}})
    classify(folder / "catalog.toml", folder / "catalog.lock", tool, decided)
"""


def test_writers_in_threads_and_processes_lose_nothing(tmp_path: Path) -> None:
    groups = [[f"t{n}-{m}" for m in range(8)] for n in range(4)]
    others = [
        subprocess.Popen([sys.executable, "-c", ELSEWHERE, str(tmp_path), *names])
        for names in groups[:2]
    ]
    threads = [threading.Thread(target=_many, args=(tmp_path, names)) for names in groups[2:]]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()

    assert [other.wait() for other in others] == [0, 0]
    assert Files(tmp_path).load().names == {f"local/{each}" for names in groups for each in names}


def test_a_writer_that_does_not_finish_is_not_waited_for_without_end(
    files: Files, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(locking, "TURN_SECONDS", 0.05)
    with (
        locking.writing(files.toml),
        pytest.raises(ConfigError, match="is held by another program"),
    ):
        files.classify()

    assert files.bytes() == [None, None]


def test_locking_beside_it_finds_the_entries_it_wrote(files: Files) -> None:
    files.classify()

    done = lock(files.toml, files.lock, {PAY.key: PAY, LOOK.key: LOOK})

    assert (done.added, done.moved, done.waiting) == ((LOOK.key,), (), ())
    assert files.load().check(PAY) is None


# -- the catalog in memory ------------------------------------------------------------------------


def test_a_catalog_with_one_tool_more_is_another_catalog() -> None:
    first = Catalog([reviewed(LOOK)])
    second = first.with_known(reviewed(PAY, "transfer"))

    assert first.check(PAY) == "tool_unreviewed"
    assert second.check(PAY) is None
    assert second.check(LOOK) is None
    assert second.digest != first.digest
    assert second.locked[PAY.key] == PAY


def test_the_newest_word_about_a_tool_counts() -> None:
    changed = Tool.from_definition({**PAY.definition(), "description": "Pays twice."})
    catalog = Catalog([reviewed(PAY, "transfer")])

    assert catalog.with_known(reviewed(changed, "transfer")).check(PAY) == "tool_changed"
    assert catalog.with_known(reviewed(changed, "transfer")).check(changed) is None
    blocked = catalog.with_blocked(PAY.key)
    assert blocked.check(PAY) == "tool_blocked"
    assert blocked.known(PAY.key) is None
    assert blocked.with_known(reviewed(PAY, "transfer")).check(PAY) is None
    for known in (
        reviewed(PAY, "transfer", blocked=True),
        Known(Review(PAY.key, frozenset(), PAY.pin, blocked=True), PAY),
    ):
        assert catalog.with_known(known).check(PAY) == "tool_blocked"


def test_what_is_not_classified_as_the_tool_it_is_does_not_come_in() -> None:
    other = reviewed(LOOK).review
    for known in (
        Known(Review(PAY.key, frozenset(), PAY.pin), PAY),
        Known(Review(PAY.key, frozenset({Impact.READ}), "sha256:0"), PAY),
        Known(other, PAY),
    ):
        with pytest.raises(ValueError, match="not classified"):
            Catalog().with_known(known)


def test_a_production_catalog_takes_no_dev_answer_live() -> None:
    known = reviewed(PAY, "transfer", reviewed_in="dev")

    assert Catalog(production=True).with_known(known).check(PAY) == "tool_unreviewed"
