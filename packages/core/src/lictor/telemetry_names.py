"""Names of all signals, generated from telemetry.yaml by scripts/generate_docs.py.

Rules enforced here:

1. No name is written anywhere else, so none can be emitted that the registry lacks.
"""

from typing import Final

OPENINFERENCE_SPAN_KIND: Final = "openinference.span.kind"
GEN_AI_TOOL_NAME: Final = "gen_ai.tool.name"
GEN_AI_TOOL_CALL_ID: Final = "gen_ai.tool.call.id"
GEN_AI_TOOL_CALL_ARGUMENTS: Final = "gen_ai.tool.call.arguments"
GEN_AI_CONVERSATION_ID: Final = "gen_ai.conversation.id"
MCP_METHOD_NAME: Final = "mcp.method.name"
ERROR_TYPE: Final = "error.type"
TOOL_SERVER: Final = "lictor.tool.server"
TOOL_PIN: Final = "lictor.tool.pin"
TOOL_IMPACT: Final = "lictor.tool.impact"
DECISION_ID: Final = "lictor.decision.id"
DECISION_VERDICT: Final = "lictor.decision.verdict"
DECISION_ENFORCEMENT: Final = "lictor.decision.enforcement"
DECISION_REASON: Final = "lictor.decision.reason"
DECISION_ASKS: Final = "lictor.decision.asks"
DECISION_FINAL: Final = "lictor.decision.final"
ANSWER_CHANNELS: Final = "lictor.answer.channels"
ANSWER_EVIDENCE: Final = "lictor.answer.evidence"
CALL_ID: Final = "lictor.call.id"
PEP_KIND: Final = "lictor.pep.kind"
PEP_SIDE: Final = "lictor.pep.side"
PLACEMENT: Final = "lictor.placement"
MODE: Final = "lictor.mode"
POLICY_IDS: Final = "lictor.policy.ids"
POLICY_ENGINE: Final = "lictor.policy.engine"
POLICY_DIGEST: Final = "lictor.policy.digest"
POLICY_HIT: Final = "lictor.policy.hit"
PRINCIPAL_KIND: Final = "lictor.principal.kind"
PRINCIPAL_ID: Final = "lictor.principal.id"
USER_ID: Final = "lictor.user.id"
ASSURANCE: Final = "lictor.assurance"
TASK_ID: Final = "lictor.task.id"
GRANT_ID: Final = "lictor.grant.id"
TENANT_ID: Final = "lictor.tenant.id"
DELEGATION_DEPTH: Final = "lictor.delegation.depth"
INPUT_DIGEST: Final = "lictor.input.digest"
RECORD_STREAM: Final = "lictor.record.stream"
RECORD_SEQ: Final = "lictor.record.seq"
RECORD_HEAD: Final = "lictor.record.head"
EXECUTION_OUTCOME: Final = "lictor.execution.outcome"
EXECUTION_SECONDS: Final = "lictor.execution.seconds"

SPAN_AUTHORIZE: Final = "authorize"
SPAN_RECEIVE: Final = "receive"
SPAN_SEND: Final = "send"
EVENT_DECISION_MADE: Final = "lictor.decision.made"
EVENT_EXECUTION_FINISHED: Final = "lictor.execution.finished"
EVENT_RECORD_DEGRADED: Final = "lictor.record.degraded"
EVENT_HOME_ALARM: Final = "lictor.home.alarm"
METRIC_DECISIONS: Final = "lictor.decisions"
METRIC_DECISIONS_UNIT: Final = "{decision}"
METRIC_DECISION_DURATION: Final = "lictor.decision.duration"
METRIC_DECISION_DURATION_UNIT: Final = "s"
METRIC_RECORD_FAILURES: Final = "lictor.record.failures"
METRIC_RECORD_FAILURES_UNIT: Final = "{record}"
METRIC_TELEMETRY_ERRORS: Final = "lictor.telemetry.errors"
METRIC_TELEMETRY_ERRORS_UNIT: Final = "{error}"

PEP_KIND_VALUES: Final = frozenset(
    {
        "function",
        "langchain",
        "llamaindex",
        "mcp_client",
        "mcp_server",
        "mcp_gateway",
        "_other",
    }
)
PEP_SIDE_VALUES: Final = frozenset(
    {
        "client",
        "middleware",
        "gateway",
        "_other",
    }
)
