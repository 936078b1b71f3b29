"""The command line in a process of its own."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path


def cli(*arguments: str, folder: Path) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "mlx_grpo.cli", *arguments]
    return subprocess.run(command, cwd=folder, capture_output=True, text=True, timeout=300)
