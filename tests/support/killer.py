"""Run `mlx-grpo` and kill it with SIGKILL at the n-th call in one of the package's modules.

    python killer.py COUNTS MODULE:N ARGUMENTS...     COUNTS: the file for the number of calls in each module

MODULE is a path below mlx_grpo without its suffix, such as training/update; `:0` kills at no call. Every Python call
counts, and every call of a C function: a write, a rename, an evaluation of arrays.
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
    assert not module or Path(PACKAGE, f"{module}.py").is_file(), moment
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
    from mlx_grpo.training import trainer  # imported now, so that its calls do not count

    assert trainer
    sys.setprofile(profile)
    try:
        command(arguments)
    finally:
        sys.setprofile(None)
        Path(counts_file).write_text(json.dumps(counts))


if __name__ == "__main__":
    main()
