"""Where the tests find what they read."""

from __future__ import annotations

import os
from pathlib import Path

TESTS = Path(__file__).resolve().parents[1]
ROOT = TESTS.parent
FIXTURES = TESTS / "fixtures"
BUNDLED_ROWS = ROOT / "mlx_grpo" / "tasks" / "data"
SMOLLM2 = ROOT / "models" / "SmolLM2-135M-Instruct"
SHARED = Path(os.environ.get("MLX_GRPO_SHARED", ROOT.parent / "shared")).resolve()
"""What lies outside the repository: Qwen3's tokenizer, a real job and candidates; tests skip where it is absent."""
REDROB = SHARED / "redrob"
