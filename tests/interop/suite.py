"""The SDK's own unit tests, without us and with the gate in every server that they make.

Where a test holds the server to something that a gate takes away, it is exempted, with the reason;
an exemption whose test passes, or is not there, fails the run as a new difference does.
"""

from __future__ import annotations

import re
import subprocess
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path

from parts import Parts, environment

FOLDERS = ("interaction", "server", "shared", "issues", "client")
SECONDS = 900
ENDED = re.compile(r"^(PASSED|FAILED|ERROR) (tests/[^\s[]+(?:\[.*?\](?= - |$))?)", re.MULTILINE)

COUNTED = "it counts listings, and the guard lists by itself before the first call of a tool"
ARGUMENTS = "its arguments do not fit the schema: refused before the server, in the gate's words"
NAMES = "it sends parameters that the protocol does not have: `meta`, `request_state`"
BACKWARDS = "it sends a server what only a server may say to its client"
TRIO = "it runs under trio: tools and the tasks of callers need asyncio, and are refused without it"
_CACHING = "tests/client/test_client_caching.py::"
_LOGIN = "tests/interaction/auth/test_login_time.py::"
_LOWLEVEL = "tests/interaction/lowlevel/"
_MCPSERVER = "tests/interaction/mcpserver/"
_MODERN = "tests/server/test_streamable_http_modern.py::"
_HOSTING = "tests/interaction/transports/test_hosting_http"
_RUNNER = "tests/server/test_runner.py::"
_SERVER = "tests/server/mcpserver/test_server.py::"
EXEMPT: Mapping[str, tuple[str, ...]] = {
    COUNTED: (
        f"{_LOWLEVEL}test_tools.py::"
        "test_call_tool_populates_the_output_schema_cache_via_an_implicit_tools_list",
        f"{_CACHING}test_a_listing_served_from_a_shared_store_rebuilds_output_schemas",
        f"{_CACHING}test_a_tools_list_changed_notification_makes_the_next_list_refetch",
        f"{_CACHING}test_the_modern_in_process_path_drops_the_eviction_notification",
        f"{_CACHING}test_validation_from_a_served_listing_rejects_missing_structured_content",
        f"{_MODERN}test_modern_synthetic_listing_does_not_replay_caller_meta_extras",
        f"{_MODERN}test_modern_tools_call_asks_get_tool_input_schema_instead_of_listing",
        f"{_MODERN}test_modern_tools_call_on_mcpserver_validates_mcp_param_headers_without_listing",
        f"{_MODERN}test_modern_tools_call_threads_the_callers_envelope_into_the_synthetic_listing",
    ),
    ARGUMENTS: (
        f"{_MCPSERVER}test_prompts.py::"
        "test_get_prompt_with_a_missing_required_argument_is_an_error",
        f"{_MCPSERVER}test_tools.py::test_call_tool_invalid_arguments_become_error_result",
        f"{_MCPSERVER}test_tools.py::"
        "test_complex_parameter_types_are_validated_and_coerced_before_the_tool_runs",
        f"{_SERVER}TestServerPrompts::test_get_prompt_missing_args",
        f"{_SERVER}test_tool_argument_validation_failure_is_logged_at_info_without_traceback",
        "tests/server/test_request_state_boundary.py::"
        "test_lone_surrogate_arguments_are_digested_not_crashed",
    ),
    NAMES: (f"{_HOSTING}.py::test_messages_are_routed_to_exactly_one_stream",),
    BACKWARDS: (
        f"{_RUNNER}test_runner_on_notify_server_direction_spec_method_routes_to_a_registered_handler",
        f"{_RUNNER}test_runner_server_direction_spec_method_routes_to_a_registered_handler",
    ),
    TRIO: (
        f"{_LOGIN}test_a_login_suspends_only_the_timeout_of_the_request_that_was_challenged",
        f"{_LOGIN}test_a_read_timeout_shorter_than_the_login_does_not_fail_the_challenged_request",
        f"{_LOGIN}"
        "test_auto_mode_falls_back_at_the_probe_deadline_when_the_server_never_answers_the_probe",
        f"{_LOGIN}test_auto_mode_negotiates_modern_when_the_login_far_outlasts_the_probe_deadline",
        f"{_LOGIN}test_the_probe_deadline_resumes_after_the_login_with_the_budget_that_was_left",
        f"{_HOSTING}_modern.py::"
        "test_modern_client_bounds_the_whole_re_list_by_the_client_default_read_timeout",
        f"{_HOSTING}_modern.py::"
        "test_modern_client_raises_the_header_mismatch_when_the_re_list_outlasts_the_read_timeout",
        f"{_MODERN}test_sse_mode_emits_keepalive_comment_between_events",
        f"{_MODERN}test_sse_mode_silent_handler_commits_sse_after_ping_interval",
    ),
}
"""Reason → tests, each with all of its variants."""


@dataclass(frozen=True)
class Ran:
    """One run: which tests pass, and which do not."""

    passing: frozenset[str]
    failing: frozenset[str]


def read(said: str) -> Ran:
    """How each test ended, as pytest sums it up; one that also breaks at its end has failed."""
    ended = ENDED.findall(said)
    failing = frozenset(test for how, test in ended if how != "PASSED")
    return Ran(frozenset(test for how, test in ended if how == "PASSED") - failing, failing)


def differences(plain: Ran, ours: Ran, exempt: Iterable[str]) -> list[str]:
    """What nobody has explained, and what is explained and is not so, one line each."""
    exempt = set(exempt)
    lost = [test for test in sorted(plain.passing - ours.passing) if _test(test) not in exempt]
    new = sorted(ours.passing - plain.passing)
    held = [test for test in sorted(ours.passing) if _test(test) in exempt]
    known = {_test(test) for test in plain.passing}
    return [
        *(f"passes only without the gate: {test}" for test in lost),
        *(f"passes only with the gate: {test}" for test in new),
        *(f"is exempt, and passes: {test}" for test in held),
        *(
            f"is exempt, and does not pass without the gate: {test}"
            for test in sorted(exempt - known)
        ),
    ]


def _test(variant: str) -> str:
    return variant.partition("[")[0]


def run(parts: Parts, log: Path, *, guarded: bool) -> Ran:
    """Runs them in the SDK's unpacked sources."""
    more = ("-p", "guard_plugin") if guarded else ()
    options = (
        "-q",
        "-rfEp",
        "--tb=no",
        "-o",
        "addopts=",
        "-o",
        "log_cli=false",
        "-o",
        "filterwarnings=",
    )
    limits = ("-n", "2", "--timeout", "60", "--timeout-method=thread")
    done = subprocess.run(
        [
            *(str(parts.suite), "-m", "pytest", *options, "-p", "anyio", *more, *limits),
            *(f"tests/{each}" for each in FOLDERS),
        ],
        cwd=parts.sdist,
        env=environment(PYTHONPATH=str(Path(__file__).parent)),
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        timeout=SECONDS,
        check=False,
    )
    log.write_text(done.stdout, encoding="utf-8")
    return read(done.stdout)
