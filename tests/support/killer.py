"""Runs `mlx-grpo` and kills it with SIGKILL at the n-th call that a module of ours makes.

    python killer.py COUNTS MODULE:N ARGUMENTS...     COUNTS: where to write how many calls each module made

Every Python call, and every call of a C function (a write, a rename, an evaluation of arrays), is a moment.
"""

from __future__ import annotations

import json
import os
import signal
import sys
from collections import Counter
from pathlib import Path
from types import FrameType

import mlx_grpo

PACKAGE = str(Path(mlx_grpo.__file__).parent)


def main() -> None:
    counts_file, moment, *arguments = sys.argv[1:]
    module, _, number = moment.partition(":")
    counts: Counter[str] = Counter()

    def profile(frame: FrameType, event: str, _: object) -> None:
        path = frame.f_code.co_filename
        if event not in ("call", "c_call") or not path.startswith(PACKAGE):
            return
        name = path[len(PACKAGE) + 1 : -3]
        counts[name] += 1
        if name == module and counts[name] == int(number):
            os.kill(os.getpid(), signal.SIGKILL)

    from mlx_grpo.cli.main import main as command
    from mlx_grpo.training import trainer  # importing is no moment of a run

    assert trainer
    sys.setprofile(profile)
    try:
        command(arguments)
    finally:
        sys.setprofile(None)
        Path(counts_file).write_text(json.dumps(counts))


if __name__ == "__main__":
    main()
