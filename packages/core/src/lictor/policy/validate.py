"""Strict validation of policies against the whole schema, with positions and mends.

Rules enforced here:

1. Nothing runs that Cedar's strict validation refuses.
2. The error names the file, the line and what to write instead.
"""

from __future__ import annotations

import difflib
import json
import re
from collections.abc import Mapping, Sequence
from typing import Final

import cedarpy

from lictor.errors import ConfigError
from lictor.policy.schema import GROUPS, NAMESPACE, schema_json
from lictor.policy.shape import Shape
from lictor.policy.source import Statement
from lictor.ports import Known

_PREFIX: Final = re.compile(r"^for policy `policy\d+`, ")
_UNKNOWN_ACTION: Final = re.compile(r'unrecognized action `\w+::Action::"(.+)"`')
_OPTIONAL: Final = re.compile(r"optional attribute `([^`]+)`")
_NOT_FOUND: Final = re.compile(r"attribute `([^`]+)` .*not found")


def validate(
    statements: Sequence[Statement],
    tools: Sequence[Known],
    contexts: Mapping[str, Shape],
) -> None:
    """Validates policies.

    Raises:
        ConfigError: For the first policy that is not valid.
    """
    document = json.dumps(schema_json(tools, contexts))
    schema = cedarpy.Schema.from_json_str(document, release_gil=True)
    text = "\n".join(statement.text for statement in statements)
    errors = cedarpy.validate_policies(text, schema, release_gil=True).errors
    if errors:
        first = min(errors, key=lambda error: int(error.policy_id.removeprefix("policy") or 0))
        statement = statements[int(first.policy_id.removeprefix("policy") or 0)]
        problem = _PREFIX.sub("", first.error)
        raise ConfigError(
            statement.where, f"policy {statement.id!r}: {problem}", _mend(problem, tools)
        )


def _mend(problem: str, tools: Sequence[Known]) -> str:
    if action := _UNKNOWN_ACTION.search(problem):
        names = [*GROUPS, *(str(known.review.key) for known in tools)]
        near = difflib.get_close_matches(action[1], names, 3) or list(GROUPS)
        return f'write {NAMESPACE}::Action::"…" with one of: {", ".join(near)}'
    if path := _OPTIONAL.search(problem):
        parent, _, name = f"context.{path[1]}".rpartition(".")
        owner = parent if " in context " in problem else "it"
        return f"ask first whether it is there: {owner} has {name} && …"
    if path := _NOT_FOUND.search(problem):
        parent, _, name = path[1].rpartition(".")
        return (
            f"not every tool of its scope has it: write context.{parent} has {name} && …, "
            "narrow the action, or correct the name"
        )
    return "correct the policy: docs/policy.md lists what it can read, and of which type"
