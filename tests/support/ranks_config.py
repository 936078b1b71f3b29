"""The configuration of a toy run that several processes share."""

from __future__ import annotations

CONFIG = """
model: {model}
dtype: float32
output_dir: {out}
data: {{train: rows.jsonl}}
reward: {{rubric: null, functions: ['toy:vowels']}}
lora: {{rank: 4}}
warm_start: {{steps: 2, batch_size: 3, learning_rate: 0.003}}
prompts_per_step: 3
num_generations: 4
max_completion_length: 8
max_steps: 5
learning_rate: 0.003
"""
