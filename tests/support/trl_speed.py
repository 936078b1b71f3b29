"""Seconds of TRL's own GRPO step on this machine, for a shape."""

from __future__ import annotations

import tempfile
import time
from pathlib import Path
from typing import Any

import torch
from datasets import Dataset
from peft import LoraConfig
from transformers import AutoModelForCausalLM, AutoTokenizer, TrainerCallback
from trl import GRPOConfig, GRPOTrainer

from mlx_grpo.planning.flops import Shape


class StepTimes(TrainerCallback):
    """Record the seconds of each step: completions, reward, gradient and update."""

    def __init__(self) -> None:
        self.seconds: list[float] = []
        self.began = 0.0

    def on_step_begin(self, *_: Any, **__: Any) -> None:
        self.began = time.perf_counter()

    def on_step_end(self, *_: Any, **__: Any) -> None:
        self.seconds.append(time.perf_counter() - self.began)


def step_seconds(folder: Path, shape: Shape, steps: int, rank: int = 16) -> list[float]:
    """Return the seconds of each of TRL's steps after a first one, with LoRA on all linear layers in fp32.

    Every completion is drawn to its full length from one prompt of the shape's length.
    """
    tokenizer = AutoTokenizer.from_pretrained(folder)
    # Words that are one token each, so that the prompt has the length that is asked for.
    prompt = tokenizer.decode(tokenizer.encode(" the" * shape.prompt_tokens)[: shape.prompt_tokens])
    times = StepTimes()
    with tempfile.TemporaryDirectory() as scratch:
        trainer = GRPOTrainer(
            model=AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32),
            reward_funcs=lambda completions, **_: [float(n) for n, _ in enumerate(completions)],
            args=GRPOConfig(
                output_dir=scratch,
                use_cpu=True,
                bf16=False,
                per_device_train_batch_size=shape.num_generations,
                num_generations=shape.num_generations,
                max_completion_length=shape.completion_tokens,
                generation_kwargs={"min_new_tokens": shape.completion_tokens},
                gradient_checkpointing=False,
                max_steps=steps + 1,
                save_strategy="no",
                report_to=[],
                disable_tqdm=True,
            ),
            train_dataset=Dataset.from_list([{"prompt": prompt}] * 4),
            processing_class=tokenizer,
            peft_config=LoraConfig(r=rank, lora_alpha=2 * rank, target_modules="all-linear"),
            callbacks=[times],
        )
        trainer.train()
    return times.seconds[1:]
