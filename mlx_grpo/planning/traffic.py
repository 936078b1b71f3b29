"""What processes on several machines send each other in a step, and up to how many machines that pays. By calculation.

A ring's all-reduce of B bytes over N machines has each send and receive 2 (N - 1) / N · B (Patarasuk and Yuan,
"Bandwidth optimal all-reduce algorithms for clusters of workstations", 2009). A step's work W, shared evenly, takes
W / N; so sending takes as long as computing at N = 1 + W / (2 t), t being the seconds that B bytes take.
"""

from __future__ import annotations

from typing import Any

LINKS = {"10 Gb/s Ethernet": 10e9 / 8, "Thunderbolt 5": 80e9 / 8}
"""Bytes a second, were all of a link's nominal speed ours."""

FP32_BYTES = 4


def traffic(trainable: int, machines: int, step_seconds: float | None, updates: int = 1) -> dict[str, Any]:
    """Bytes and seconds of a step's gradients, in fp32; `step_seconds` is what one machine alone computes for a step.

    Each of a step's `updates` sums a gradient. Completions and their log-probabilities are left out.
    """
    gradient = updates * trainable * FP32_BYTES
    sent = 2 * (machines - 1) / machines * gradient
    links = {
        name: {
            "seconds": sent / speed,
            "machines_at_par": step_seconds and 1 + step_seconds / (2 * gradient / speed),
        }
        for name, speed in LINKS.items()
    }
    return {"machines": machines, "gradient_bytes": gradient, "sent_bytes": sent, "links": links}
