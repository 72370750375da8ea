"""`make upstream-llamaindex SRC=checkout`: LlamaIndex's own tests, without us and with the gate.

Runs the files below, as the checkout has them, twice: as they are, and with every tool guarded by
a gate that allows. The same tests must pass, but for those that hold the host to what a gate takes
away. A file that this checkout does not have is named.
"""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path

import suite

FILES = (
    "tools/test_base.py",
    "tools/test_calling.py",
    "tools/test_function_tool.py",
    "tools/test_query_engine_tool.py",
    "tools/test_retriever_tool.py",
    "agent/workflow/test_single_agent_workflow.py",
    "agent/workflow/test_multi_agent_workflow.py",
    "agent/workflow/test_return_direct_e2e.py",
    "agent/workflow/test_code_act_agent.py",
    "agent/workflow/test_wait_for_event_replay.py",
)
EXEMPT = (
    # a call that overrides what the program has set in `partial_params`
    "tests/tools/test_base.py::test_function_tool_partial_params",
    "tests/tools/test_base.py::test_function_tool_partial_params_async",
    # an argument that the tool's schema does not have
    "tests/tools/test_query_engine_tool.py::test_query_engine_tool",
)
SECONDS = 600
OPTIONS = ("-q", "-rfEp", "--tb=no", "-o", "addopts=", "-p", "no:cacheprovider", "--timeout=60")


def run(core: Path, files: list[str], *plugins: str) -> str:
    """What pytest said."""
    loaded = [option for each in plugins for option in ("-p", each)]
    command = [sys.executable, "-m", "pytest", *OPTIONS, f"--rootdir={core}", *loaded, *files]
    paths = os.pathsep.join((str(core), str(Path(__file__).parent)))
    done = subprocess.run(
        command,
        cwd=core,
        env={**os.environ, "PYTHONPATH": paths},
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        timeout=SECONDS,
        check=False,
    )
    return done.stdout


def main(checkout: str) -> int:
    """Runs both; 0 if the same tests pass and the gate decided something."""
    core = Path(checkout).resolve() / "llama-index-core"
    present = [f"tests/{each}" for each in FILES if (core / "tests" / each).is_file()]
    if not checkout or not present:
        print(f"no tests of LlamaIndex at {core}; make upstream-llamaindex SRC=path/to/llama_index")
        return 2
    for each in FILES:
        if f"tests/{each}" not in present:
            print(f"  not in this checkout: {each}")
    said = run(core, present, "llamaindex_plugin")
    plain, ours = suite.read(run(core, present)), suite.read(said)
    bad = suite.differences(plain, ours, EXEMPT)
    print(f"  plain   {len(plain.passing)} passed, {len(plain.failing)} not")
    print(f"  guarded {len(ours.passing)} passed, {len(ours.failing)} not; {len(EXEMPT)} exempt")
    for line in (*re.findall(r"^(?:DECIDED|LEFT) .*", said, re.MULTILINE), *bad):
        print(f"  {line}")
    if not plain.passing or not re.search(r"^DECIDED [1-9]", said, re.MULTILINE):
        print("nothing was tried:", said[-2000:])
        return 1
    return 1 if bad else 0


if __name__ == "__main__":
    sys.exit(main(" ".join(sys.argv[1:])))
