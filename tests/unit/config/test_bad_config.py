"""Bad configurations and command lines: exit code 2, and the words that help."""

from __future__ import annotations

from pathlib import Path

import pytest
from support.bad_input import Words, error_of, holds, write

CONFIGS: dict[str, tuple[str | bytes, Words]] = {
    "an unknown key": ("model: m\nlearnin_rate: 1", ("c.yaml", "learnin_rate", "1", "did you mean learning_rate?")),
    "an unknown section key": ("model: m\nlora: {rnk: 2}", ("lora.rnk: 2", "did you mean rank?")),
    "no model": ("max_steps: 3", ("c.yaml", "model: missing", "add it")),
    "text for a number": ("model: m\nmax_steps: five", ("max_steps: 'five'", "give")),
    "true for a number": ("model: m\nmax_steps: true", ("max_steps: True", "a number")),
    "a list for a section": ("model: m\nlora: [1]", ("lora: [1]", "give")),
    "a number for a section": ("model: m\ndata: 5", ("data: 5", "give")),
    "null for a number": ("model: m\nmax_steps: null", ("max_steps: None", "give")),
    "a negative count": ("model: m\nnum_generations: -8", ("num_generations: -8", "greater than or equal to 2")),
    "not a number": ("model: m\nlearning_rate: .nan", ("learning_rate: nan", "give")),
    "infinity": ("model: m\nbeta: .inf", ("beta: inf", "finite")),
    "no such choice": ("model: m\nloss_type: ppo", ("loss_type: 'ppo'", "'grpo'", "'dapo'")),
    "an integer of 6000 digits": ("model: m\nseed: " + "9" * 6000, ("c.yaml", "digits", "correct it")),
    "a hexadecimal of 6000 digits": ("model: m\nseed: 0x" + "f" * 6000, ("seed:", "more digits than", "give")),
    "a date that is none": ("model: 2024-99-99", ("c.yaml", "month must be in 1..12", "quote the value")),
    "a text of a megabyte": ("model: m\nmax_steps: " + "x" * 500_000, ("max_steps: 'xxx", "...", "give")),
    "an impossible pair": ("model: m\nepsilon_high: 0.1", ("epsilon_high: 0.1", "epsilon 0.2", "raise it")),
    "a rubric and functions": (
        "model: m\nreward: {functions: ['a:b']}",
        ("exclude each other", "reward.rubric to null"),
    ),
    "a function without a module": (
        "model: m\nreward: {rubric: null, functions: [score]}",
        ("reward.functions.0: 'score'", "give module:function"),
    ),
    "an unknown weight": ("model: m\nreward: {weights: {brevity: 1}}", ("weights.brevity", "choose from")),
    "a weight below 0": ("model: m\nreward: {weights: {reason_quality: -1}}", ("reward.weights.reason_quality: -1",)),
    "lora in a full fine-tune": (
        "model: m\nfine_tune_type: full\nlora: {rank: 2}",
        ("lora: set", "remove the section"),
    ),
    "a secret": ("model: m\nhub_token: hf_abcdefghijklmnop", ("hub_token", "set HF_TOKEN", "remove it")),
    "broken YAML": ("model: [", ("c.yaml", "not readable as YAML", "line 1", "correct it")),
    "a tab as indentation": ("model: m\nlora:\n\trank: 2", ("c.yaml", "line 3", "correct it")),
    "a Python object": (
        "model: !!python/object/apply:os.system [exit]",
        ("c.yaml", "could not determine a constructor"),
    ),
    "a list at the top": ("- a\n- b", ("c.yaml", "holds list", "start with `model: ...`")),
    "an empty file": ("", ("c.yaml", "holds NoneType", "start with `model: ...`")),
    "a key that is no text": ("model: m\n1: 2", ("c.yaml", "1: 1: unknown key", "known keys: model")),
    "a hundred thousand brackets": ("model: " + "[" * 100_000, ("c.yaml", "recursion depth", "correct it")),
    "Latin-1": ("model: Zoë".encode("latin-1"), ("c.yaml", "utf-8", "save it as a UTF-8 text file")),
    "a binary file": (b"\x00\x01\x02\xff" * 20, ("c.yaml", "save it as a UTF-8 text file")),
    "a null byte": ("model: a\0b", ("c.yaml", "special characters are not allowed", "correct it")),
    "a model that is nowhere": ("model: /no/such/model", ("'/no/such/model'", "give a local folder")),
    "a model that is a file": ("model: c.yaml", ("model: c.yaml is a file", "give a folder", "convert.gguf")),
    "a reward module that is nowhere": (
        "model: m\nreward: {rubric: null, functions: ['nowhere_at_all:f']}",
        ("nowhere_at_all:f", "No module named", "must be importable"),
    ),
    "a reward that is no function": (
        "model: m\nreward: {rubric: null, functions: ['support.toy_rewards:annotations']}",
        ("support.toy_rewards:annotations", "is no function"),
    ),
}


@pytest.mark.parametrize("name", CONFIGS)
def test_bad_config_is_reported(name: str, workdir: Path):
    content, words = CONFIGS[name]
    write(workdir / "c.yaml", content)
    holds(error_of("train", "c.yaml"), words)


COMMANDS: dict[str, tuple[tuple[str, ...], Words]] = {
    "an unknown command": (("trian",), ("No such command 'trian'", "Did you mean", "--help")),
    "an unknown option": (("train", "qwen3", "--step", "5"), ("No such option", "--step")),
    "no config": (("train",), ("Missing argument 'CONFIG'", "-h")),
    "no file of that name": (("train", "absent.yaml"), ("absent.yaml", "no such config file", "qwen3, ")),
    "a folder as the config": (("train", "."), (".: is a folder", "give the config file")),
    "an override without a value": (("train", "qwen3", "max_steps"), ("'max_steps'", "write key=value")),
    "an override of nothing": (("train", "qwen3", "=5"), ("'=5'", "write key=value")),
    "an override inside a value": (("train", "qwen3", "seed.x=1"), ("'seed.x=1'", "seed is not a section")),
    "an override that is no YAML": (("train", "qwen3", "lora={"), ("'lora={'", "not readable as YAML", "quote")),
    "no processes": (("train", "qwen3", "--processes", "0"), ("--processes", "0", "x>=1")),
    "more processes than cores": (("train", "qwen3", "--processes", "9999"), ("--processes: 9999", "cores", "at most")),
    "shapes that are none": (("bench", "qwen3", "--shapes", "256x8"), ("--shapes", "'256x8'", "give PxGxT")),
    "a shape of nothing": (("bench", "qwen3", "--shapes", "0x8x8"), ("--shapes", "'0x8x8'", "give PxGxT")),
    "an export of no format": (("export",), ("export", "--hf")),
    "a dtype that is none": (("export", "--hf", "--dtype", "int4"), ("--dtype", "'int4'", "'bfloat16'")),
    "no pool": (("data", "build", "--jd", "a", "--out", "b"), ("Missing option '--candidates'", "-h")),
    "no episodes": (("eval", "--episodes", "0"), ("--episodes", "0", "x>=1")),
}


@pytest.mark.parametrize("name", COMMANDS)
def test_bad_command_line_is_reported(name: str, workdir: Path):
    arguments, words = COMMANDS[name]
    holds(error_of(*arguments), words)
