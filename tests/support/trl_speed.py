"""Seconds of TRL's own GRPO step on this machine, for a shape.

It runs in a process of its own, `python -m support.trl_speed MODEL P G T STEPS`, that never loads mlx_grpo: the BLAS
that mlx_grpo puts before all others takes the place of PyTorch's.
"""

from __future__ import annotations

import json
import sys
import tempfile
import time
from typing import Any

import torch
from datasets import Dataset
from peft import LoraConfig
from transformers import AutoModelForCausalLM, AutoTokenizer, TrainerCallback
from trl import GRPOConfig, GRPOTrainer


class StepTimes(TrainerCallback):
    """Record the seconds of each step: completions, reward, gradient and update."""

    def __init__(self) -> None:
        self.seconds: list[float] = []
        self.began = 0.0

    def on_step_begin(self, *_: Any, **__: Any) -> None:
        self.began = time.perf_counter()

    def on_step_end(self, *_: Any, **__: Any) -> None:
        self.seconds.append(time.perf_counter() - self.began)


def train(folder: str, prompt_tokens: int, num_generations: int, completion_tokens: int, steps: int) -> list[float]:
    """Return the seconds of each of TRL's steps after a first one, with LoRA of rank 16 on all linear layers in fp32.

    Every completion is drawn to its full length from one prompt.
    """
    tokenizer = AutoTokenizer.from_pretrained(folder)
    prompt = tokenizer.decode(tokenizer.encode(" the" * prompt_tokens)[:prompt_tokens])  # words of one token each
    times = StepTimes()
    with tempfile.TemporaryDirectory() as scratch:
        trainer = GRPOTrainer(
            model=AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32),
            reward_funcs=lambda completions, **_: [float(n) for n, _ in enumerate(completions)],
            args=GRPOConfig(
                output_dir=scratch,
                use_cpu=True,
                bf16=False,
                per_device_train_batch_size=num_generations,
                num_generations=num_generations,
                max_completion_length=completion_tokens,
                generation_kwargs={"min_new_tokens": completion_tokens},
                gradient_checkpointing=False,
                max_steps=steps + 1,
                save_strategy="no",
                report_to=[],
                disable_tqdm=True,
            ),
            train_dataset=Dataset.from_list([{"prompt": prompt}] * 4),
            processing_class=tokenizer,
            peft_config=LoraConfig(r=16, lora_alpha=32, target_modules="all-linear"),
            callbacks=[times],
        )
        trainer.train()
    return times.seconds[1:]


if __name__ == "__main__":
    print(json.dumps(train(sys.argv[1], *map(int, sys.argv[2:]))))
