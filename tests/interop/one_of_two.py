"""`python one_of_two.py FOLDER SCRIPT ARGUMENT…`: runs a script when one of two places is free.

The suite starts all its clients at once; on a small machine they then run into their time limits.
"""

from __future__ import annotations

import fcntl
import os
import runpy
import sys
from pathlib import Path

if __name__ == "__main__":
    _, folder, *sys.argv = sys.argv
    place = open(Path(folder) / f"place-{os.getpid() % 2}", "ab")
    fcntl.flock(place, fcntl.LOCK_EX)
    sys.path[0] = str(Path(sys.argv[0]).parent)
    runpy.run_path(sys.argv[0], run_name="__main__")
