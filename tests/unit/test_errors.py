"""Rules of lictor.errors: one closed table, nothing useful to an attacker, always a way out."""

from __future__ import annotations

import re
import tomllib
from pathlib import Path

import pytest

from lictor.errors import (
    PERMIT,
    POLICY_STAGE,
    REFUSALS,
    ConfigError,
    Denied,
    LictorError,
    Pending,
    StoreError,
    TaskError,
    mend,
    table,
)
from lictor.model import Decision, Enforcement, ToolKey, Verdict

DOCS = Path(__file__).resolve().parents[2] / "docs" / "errors.md"
CODES = sorted(REFUSALS)


@pytest.mark.parametrize("code", CODES)
class TestEveryRefusal:
    def test_has_a_plain_code(self, code: str) -> None:
        assert re.fullmatch(r"[a-z]+(_[a-z]+)*", code)

    def test_tells_the_model_no_number_no_name_and_no_policy(self, code: str) -> None:
        text = REFUSALS[code].model
        assert not re.search(r"\d", text)
        assert not re.search(r"[`\"{}<>=%$/\[\]_]", text)
        assert not re.search(r"(?i)cedar|lictor|catalog\.|toml|threshold|limit of|role", text)

    def test_does_not_invite_the_model_to_retry(self, code: str) -> None:
        text = REFUSALS[code].model.replace("Do not try again", "")
        assert not re.search(r"(?i)try again|retry|later|instead", text)

    def test_is_a_sentence_or_two(self, code: str) -> None:
        for text in (REFUSALS[code].model, REFUSALS[code].developer):
            assert text[0].isupper()
            assert text.endswith(".")
            assert len(text) <= 160

    def test_has_a_mend_and_a_stage(self, code: str) -> None:
        assert len(REFUSALS[code].mend) >= 10
        assert REFUSALS[code].stage in STAGES

    def test_is_documented_whole(self, code: str) -> None:
        refusal, docs = REFUSALS[code], DOCS.read_text("utf-8")
        section = docs.split(f"### `{code}`", 1)[1].split("###", 1)[0]
        assert refusal.model in section
        assert refusal.developer in section
        assert refusal.mend in section
        assert section.startswith(" (failure)") is refusal.failure

    def test_reaches_the_model_as_the_sentence_and_the_developer_whole(self, code: str) -> None:
        refusal = REFUSALS[code]
        denied = Denied(decision(code, detail="amount is 900"))
        assert str(denied) == refusal.model
        assert denied.code == code
        told = denied.diagnostics()
        for part in ("local/pay", code, "amount is 900", refusal.developer, refusal.mend):
            assert part in told
        assert told.endswith("lictor explain 01D")


STAGES = {
    "schema",
    "catalog",
    "identity",
    "revocation",
    "grant",
    "tenant",
    "protected",
    "budget",
    "policy",
    "ask",
    "intent",
    "labels",
    "internal",
}


def decision(code: str, detail: str = "") -> Decision:
    return Decision(
        "01D",
        "C1",
        ToolKey("local", "pay"),
        Verdict.DENY,
        Enforcement.BLOCK,
        code,
        REFUSALS[code].model,
        detail=detail,
    )


@pytest.mark.parametrize(
    "name", ["alice", "a b", "alice@example.com", 'a"]x\\', "\u202e\n", "é", ""]
)
def test_a_table_of_toml_is_one_whatever_the_name_is(name: str) -> None:
    assert tomllib.loads(table("users", name)) == {"users": {name: {}}}
    assert table("users", name).isprintable()


def test_only_a_confirm_is_said_to_be_given_at_the_watch() -> None:
    assert "lictor watch" in mend("ask_unavailable", ("confirm:user",))
    assert "lictor watch" in mend("ask_unavailable")
    for asks in (("approval:boss",), ("confirm:user", "four-eyes:boss")):
        assert "lictor watch" not in mend("ask_unavailable", asks)
        assert "[tasks." in mend("ask_unavailable", asks)


def test_permit_is_no_refusal() -> None:
    assert PERMIT not in REFUSALS


def test_observe_relaxes_only_what_policy_decided_on_the_merits() -> None:
    merits = {c for c, r in REFUSALS.items() if r.stage == "policy" and not r.failure}
    assert merits == POLICY_STAGE


def test_codes_that_others_rely_on_are_there() -> None:
    assert {
        "grant_scope",
        "grant_limit",
        "protected",
        "contention",
        "already_attempted",
        "not_canonical",
        "record_unavailable",
        "internal_error",
    } <= set(REFUSALS)


def test_nothing_else_is_documented() -> None:
    documented = re.findall(r"^### `(\w+)`", DOCS.read_text("utf-8"), re.MULTILINE)
    assert sorted(documented) == CODES


def test_waiting_is_a_denial() -> None:
    pending = Pending(decision("ask_required"))
    assert isinstance(pending, Denied)
    assert isinstance(pending, LictorError)


def test_a_configuration_error_says_where_what_and_how_to_mend_it() -> None:
    error = ConfigError("lictor.toml:3", "unknown key tolls", "did you mean tools?")
    assert str(error) == "lictor.toml:3: unknown key tolls\n  mend: did you mean tools?"
    assert (error.where, error.problem, error.mend) == (
        "lictor.toml:3",
        "unknown key tolls",
        "did you mean tools?",
    )
    assert error.diagnostics() == str(error)


def test_a_store_error_says_what_and_how_to_mend_it() -> None:
    error = StoreError("the disk is full", "free space")
    assert "the disk is full" in str(error)
    assert "mend: free space" in str(error)


@pytest.mark.parametrize(
    ("error", "code"),
    [
        (ConfigError("a", "b", "c"), "config"),
        (StoreError("a", "b"), "store"),
        (TaskError(), "task"),
    ],
)
def test_every_error_has_a_code_and_is_ours(error: LictorError, code: str) -> None:
    assert error.code == code
    assert isinstance(error, LictorError)
