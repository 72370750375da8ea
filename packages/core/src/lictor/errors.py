"""Everything that can go wrong, and the one table of refusals.

```
LictorError
├── Denied            a call was refused; carries the Decision
│   └── Pending       …and somebody can still answer: wait, or resume the task later
├── ConfigError       a file or setting is wrong: what, where, how to mend it
├── StoreError        the store cannot take or give what it must; calls are denied meanwhile
├── TaskError         a task is used in a way that would mix up authority
└── Withheld          raised by an adapter inside a body: it ran, its result must not pass
```

Rules enforced here:

1. Every refusal has a code from one closed table; the model, the record and the span use the same.
2. The text for the model holds no policy, no threshold, no value, and never invites a retry.
3. The text for the developer ends with what mends it.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from lictor.model import Decision


class LictorError(Exception):
    """Root of all errors raised by Lictor."""

    code: str = "lictor"

    def diagnostics(self) -> str:
        """The full text for a developer or operator; never shown to a model."""
        return str(self)


class Denied(LictorError):
    """A call was refused. `str()` is the sentence for the model.

    Attributes:
        decision: What was decided and why.
    """

    def __init__(self, decision: Decision) -> None:
        self.decision = decision
        self.code = decision.reason
        super().__init__(decision.text)

    def diagnostics(self) -> str:
        """What was refused, why, what mends it, and the decision id."""
        refusal = REFUSALS[self.decision.reason]
        detail = f"\n  {_one_line(self.decision.detail)}" if self.decision.detail else ""
        return (
            f"{_one_line(self.decision.tool)} was denied: {self.decision.reason}{detail}\n"
            f"  {refusal.developer}\n"
            f"  mend: {mend(self.decision.reason, self.decision.asks)}\n"
            f"  decision {self.decision.id}: lictor explain {self.decision.id}"
        )


def _one_line(text: object) -> str:
    """What a host or model has named makes no line that looks like one of ours."""
    return str(text).replace("\n", "\\n")


class Pending(Denied):
    """The call waits for a person. Raised only when somebody can still answer."""


class ConfigError(LictorError):
    """A configuration, policy or catalog is wrong. Nothing was changed and nothing runs.

    Attributes:
        where: File, and line or key.
        problem: What is wrong.
        mend: What to write or run instead.
    """

    code = "config"

    def __init__(self, where: str, problem: str, mend: str) -> None:
        self.where, self.problem, self.mend = where, problem, mend
        super().__init__(f"{where}: {problem}\n  mend: {mend}")


class StoreError(LictorError):
    """The store cannot take or give what it must.

    Attributes:
        problem: What is wrong, and where the store is.
        mend: What the operator can do.
    """

    code = "store"

    def __init__(self, problem: str, mend: str) -> None:
        self.problem, self.mend = problem, mend
        super().__init__(f"{problem}\n  mend: {mend}")


class TaskError(LictorError):
    """A task was entered, resumed or left in a way that would mix up authority."""

    code = "task"


class Unguardable(LictorError):
    """A tool cannot be guarded as it is. Says why, and what to do instead."""

    code = "unguardable"

    def __init__(self, name: str, problem: str, mend: str) -> None:
        self.problem, self.mend = problem, mend
        super().__init__(f"tool {name!r} cannot be guarded: {problem}\n  mend: {mend}")


class HostChanged(LictorError):
    """This version of the host does not let calls be intercepted. Nothing was guarded."""

    code = "host_changed"


class Withheld(LictorError):
    """Raised inside a body, by an adapter: the tool has run, and its result must not pass.

    The outcome is `done`; the caller gets `Denied` with the reason `result_withheld`.
    """

    code = "withheld"


@dataclass(frozen=True, slots=True)
class Refusal:
    """One row of the table.

    Attributes:
        model: One plain sentence for the model.
        developer: What it means.
        mend: The command or line that mends it.
        stage: Where in the pipeline it is decided.
        failure: The gate could not decide (an ERROR span), as against a refusal on the merits.
    """

    model: str
    developer: str
    mend: str
    stage: str
    failure: bool = False


_BARE: Final = re.compile(r"[A-Za-z0-9_-]+")
CONFIRM: Final = "confirm:user"
_STOP: Final = "Do not try again; continue without it or ask the user."

REFUSALS: Final[dict[str, Refusal]] = {
    "input_invalid": Refusal(
        "The arguments do not fit the tool's definition.",
        "The arguments are malformed or do not validate against the pinned schema.",
        "call the tool with arguments that fit its schema (the detail names the one that does not)",
        "schema",
    ),
    "not_canonical": Refusal(
        "An argument is not written in its canonical form.",
        "A path, URL, address or text differs from its canonical form, so what is checked would "
        "not be what runs.",
        "write the value as the detail says",
        "schema",
    ),
    "input_hidden": Refusal(
        f"This tool acts on data that cannot be checked. {_STOP}",
        "An effectful tool takes injected state, store or runtime that the catalog does not name.",
        'name the paths it uses in catalog.toml: inputs = ["state.draft.to"]',
        "schema",
    ),
    "host_refused": Refusal(
        f"This tool could not be called. {_STOP}",
        "The host gave up before the tool was met, as when an asynchronous tool is called from "
        "synchronous code.",
        "call the tool the way it is written: await agent.ainvoke(...) for an async one",
        "schema",
    ),
    "tool_unknown": Refusal(
        f"There is no such tool. {_STOP}",
        "The model asked for a name that no offered tool has.",
        "nothing, if the model invented it; else offer it: create_agent(model, [tool], gate=gate)",
        "catalog",
    ),
    "tool_unreviewed": Refusal(
        f"This tool has not been reviewed, so it may not run. {_STOP}",
        "The catalog has no entry for the tool.",
        "lictor review, then start the program again",
        "catalog",
    ),
    "tool_changed": Refusal(
        f"This tool has changed since it was reviewed, so it may not run. {_STOP}",
        "The definition or code that is about to run is not the one that was reviewed.",
        "lictor review (it shows what changed), then start the program again",
        "catalog",
    ),
    "tool_blocked": Refusal(
        f"This tool is blocked. {_STOP}",
        "The reviewer blocked the tool.",
        "if that was a mistake: remove blocked = true in catalog.toml, then lictor review",
        "catalog",
    ),
    "tool_unguarded": Refusal(
        f"This tool may not be called here. {_STOP}",
        "A tool was about to run that no guard holds.",
        "create_agent(model, tools, gate=gate), or guard(tools, gate) for a hand-built graph",
        "catalog",
    ),
    "tool_isolation": Refusal(
        f"Code may not be executed here. {_STOP}",
        "An `execute` tool runs in the agent's own process, where the gate cannot contain it.",
        'run it elsewhere and say so in catalog.toml: isolation = "container"',
        "catalog",
    ),
    "provider_tool": Refusal(
        f"This provider tool may not be used. {_STOP}",
        "A tool that the model provider runs itself cannot be authorized per call.",
        "remove it, or let its type pass: GateMiddleware(gate, provider_tools=['web_search'])",
        "catalog",
    ),
    "task_missing": Refusal(
        f"No task is open, so nothing may run. {_STOP}",
        "The call was made outside `with gate.task(...)`, or in a thread without its context.",
        'with gate.task("NAME", agent="NAME", on_behalf_of="NAME"): around the run; in a bare '
        "thread task.bind(function)",
        "identity",
    ),
    "task_ended": Refusal(
        f"The task has ended, so nothing more may run. {_STOP}",
        "The call was made after its task ended.",
        "make the call inside the block of its task, or open another one with gate.task(...)",
        "identity",
    ),
    "task_suspended": Refusal(
        f"The task waits for a person. {_STOP}",
        "The call was made while its task is suspended.",
        "lictor watch (answers its question), then gate.resume(task.id)",
        "identity",
    ),
    "principal_unknown": Refusal(
        f"The caller is not known. {_STOP}",
        "A principal of the chain is not, or no longer, in the directory.",
        "name it in lictor.toml: [agents.NAME] or [users.NAME], then start the program again",
        "identity",
    ),
    "identity_unverified": Refusal(
        f"The caller's identity is not verified. {_STOP}",
        "Verified identity is required here and the task was opened with names.",
        "require_verified = false in lictor.toml, where names without a proof are enough",
        "identity",
    ),
    "revoked": Refusal(
        f"The authority for this was withdrawn. {_STOP}",
        "The task, agent, user or tenant was revoked.",
        "lictor explain last shows what was withdrawn",
        "revocation",
    ),
    "grant_expired": Refusal(
        f"The time for this task is over. {_STOP}",
        "The task's grant has expired.",
        "open a new task, or let it last longer: expires_in = 3600 in [tasks.NAME]",
        "grant",
    ),
    "grant_scope": Refusal(
        f"This task does not include that tool. {_STOP}",
        "The task's grant does not cover the tool (a task that names no tools may only read).",
        'name it in the task: tools = ["TOOL"] in [tasks.NAME], or gate.task(..., tools=["TOOL"])',
        "grant",
    ),
    "grant_limit": Refusal(
        f"This task does not allow the tool with these arguments. {_STOP}",
        "An argument is outside the grant's limits, or is one that the limits do not name.",
        "change the limit in [tasks.NAME.limits.TOOL], or leave the argument out",
        "grant",
    ),
    "tenant": Refusal(
        f"That belongs to another tenant. {_STOP}",
        "The tenants of task, principals and tool differ.",
        'tenant = "TENANT", the same one, in [agents.NAME], [users.NAME] and, of catalog.toml, '
        "[servers.NAME]",
        "tenant",
    ),
    "config_changed": Refusal(
        f"The rules have changed on disk, so nothing may be done now. {_STOP}",
        "A file that the gate was made from is no longer what was loaded, and not merely narrower.",
        "put the file back; or lictor check, then start the program again to use it as it is",
        "protected",
    ),
    "protected": Refusal(
        f"That location is protected. {_STOP}",
        "An argument leads to the gate's own files, environment or listeners.",
        "call it with another path, or move Lictor's files out of what the tool can reach",
        "protected",
    ),
    "budget_exceeded": Refusal(
        f"The budget of this task is used up. {_STOP}",
        "The task's budget of calls or spend does not cover the call.",
        'raise it in [tasks.NAME]: calls = 100 or spend = "500.00"',
        "budget",
    ),
    "no_permit": Refusal(
        f"This is not permitted. {_STOP}",
        "No policy permits the call for every principal of the chain.",
        "lictor explain last names the conditions that failed; a [[rule]] in lictor.toml permits",
        "policy",
    ),
    "policy_denied": Refusal(
        f"This is forbidden. {_STOP}",
        "A policy forbids the call.",
        "lictor explain last names the policy and why: change it, or make another call",
        "policy",
    ),
    "policy_error": Refusal(
        f"The policy could not be evaluated, so nothing ran. {_STOP}",
        "A policy raised an error or the engine gave no usable answer.",
        "lictor check, and lictor explain last names the policy that failed: change it",
        "policy",
        failure=True,
    ),
    "policy_timeout": Refusal(
        f"The policy did not answer in time, so nothing ran. {_STOP}",
        "The policy engine did not answer within its deadline.",
        "policy_timeout = 10.0 in lictor.toml, if the policy service is only slow",
        "policy",
        failure=True,
    ),
    "ask_required": Refusal(
        "A person must agree to this first.",
        "The call needs a confirm or an approval, and the question was asked.",
        "lictor watch (in another terminal) to answer it, then gate.resume(task.id)",
        "ask",
    ),
    "ask_unavailable": Refusal(
        f"A person would have to agree to this, and nobody can be asked. {_STOP}",
        "The call needs a confirm or an approval and nobody can be asked for it.",
        "lictor watch (in another terminal), then call again; or fix its target and amount "
        "in [tasks.NAME.limits.TOOL]",
        "ask",
    ),
    "ask_rejected": Refusal(
        f"The person who was asked did not agree. {_STOP}",
        "The confirm or approval was rejected; the same call is not asked again in this task.",
        "ask the person why; only another task asks again: gate.task(...)",
        "ask",
    ),
    "ask_unanswered": Refusal(
        f"A person was asked and did not answer. {_STOP}",
        "The question stood for its time and nobody answered it.",
        "lictor watch, then make the call again while somebody is there",
        "ask",
    ),
    "contention": Refusal(
        "Other work changed the facts while this was decided, so nothing ran.",
        "What the decision rested on changed three times in a row.",
        "make the call again; run fewer effectful calls of one session at once",
        "intent",
        failure=True,
    ),
    "already_attempted": Refusal(
        f"This call was already made once. {_STOP}",
        "The host started the same call a second time (resume, replay, time travel).",
        "lictor explain last tells how the first attempt ended; to do it again, make a new call",
        "intent",
    ),
    "record_unavailable": Refusal(
        f"The call could not be recorded, so nothing ran. {_STOP}",
        "The store did not take the record, so the call was denied.",
        "lictor check (is the store full, read-only or locked?), then start the program again",
        "intent",
        failure=True,
    ),
    "result_withheld": Refusal(
        f"The call ran, but its result is withheld. {_STOP}",
        "What the result adds to the session could not be recorded, or it holds what may not pass.",
        "lictor check; how the call ended: lictor explain last",
        "labels",
        failure=True,
    ),
    "interrupted": Refusal(
        "The call was cancelled before it was decided, so nothing ran.",
        "The caller was cancelled or interrupted while the call was being decided.",
        "nothing: its caller gave up; the call can be made again",
        "internal",
    ),
    "internal_error": Refusal(
        f"The call could not be checked, so nothing ran. {_STOP}",
        "The gate met an error of its own.",
        "lictor explain last shows it; please report it",
        "internal",
        failure=True,
    ),
}
"""code → refusal. `permit` is the one reason of an ALLOW and stands in no table of refusals."""


def table(*names: str) -> str:
    """`[users.alice]`, as it is written in TOML whatever the names are."""
    return f"[{'.'.join(name if _BARE.fullmatch(name) else _quoted(name) for name in names)}]"


def _quoted(text: str) -> str:
    shown = "".join(c if c.isprintable() and c not in '"\\' else f"\\U{ord(c):08X}" for c in text)
    return f'"{shown}"'


_NO_APPROVAL: Final = (
    "fix its target and amount in [tasks.NAME.limits.TOOL], or change the policy that demands it "
    "(lictor explain last names it): an approval by somebody else cannot be given yet"
)


def mend(code: str, asks: tuple[str, ...] = ()) -> str:
    """What mends a refusal.

    Args:
        code: Its code.
        asks: What people were to be asked. Only a confirm can be given where `lictor watch` runs.
    """
    if code == "ask_unavailable" and any(ask != CONFIRM for ask in asks):
        return _NO_APPROVAL
    return REFUSALS[code].mend


PERMIT: Final = "permit"
POLICY_STAGE: Final = frozenset({"no_permit", "policy_denied"})
"""The only refusals that observe mode lets proceed."""
