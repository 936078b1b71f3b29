"""Ollama's Modelfile says a chat template in Ollama's own fields, or nothing where it can't."""

from __future__ import annotations

import pytest
from support.tiny_models import STOP, TEMPLATE, tiny_tokenizer

from mlx_grpo.export.modelfile import modelfile_lines

CHATML = "{% for m in messages %}<|im_start|>{{ m.role }}\n{{ m.content }}<|im_end|>\n{% endfor %}"
BEGIN = "{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}"
DEFAULT = "{% if messages[0].role != 'system' %}<|im_start|>system\nBe brief.<|im_end|>\n{% endif %}"
GEMMA = (
    "{{ bos_token }}{% set system = messages[0].role == 'system' %}"
    "{% for m in (messages[1:] if system else messages) %}"
    "<start_of_turn>{{ 'model' if m.role == 'assistant' else m.role }}\n"
    "{% if system and loop.first %}{{ messages[0].content }}\n\n{% endif %}{{ m.content | trim }}<end_of_turn>\n"
    "{% endfor %}{% if add_generation_prompt %}<start_of_turn>model\n{% endif %}"
)
STOPS = f'PARAMETER stop "{STOP}"\n'


@pytest.mark.parametrize(
    ("template", "thinking", "lines"),
    [
        (
            TEMPLATE,
            False,
            'TEMPLATE """{{ if .System }}<|im_start|>system\n{{ .System }}<|im_end|>\n{{ end }}<|im_start|>user\n'
            '{{ .Prompt }}<|im_end|>\n<|im_start|>assistant\n<think></think>{{ .Response }}<|im_end|>\n"""\n',
        ),
        (
            DEFAULT + CHATML + BEGIN,
            True,
            'TEMPLATE """{{ if .System }}<|im_start|>system\n{{ .System }}<|im_end|>\n{{ end }}<|im_start|>user\n'
            '{{ .Prompt }}<|im_end|>\n<|im_start|>assistant\n{{ .Response }}<|im_end|>\n"""\n'
            'SYSTEM """Be brief."""\n',
        ),
        (
            GEMMA,
            True,
            'TEMPLATE """<start_of_turn>user\n{{ if .System }}{{ .System }}\n\n{{ end }}{{ .Prompt }}<end_of_turn>\n'
            '<start_of_turn>model\n{{ .Response }}<end_of_turn>\n"""\n',
        ),
        ("{{ raise_exception('no system') }}", True, ""),
        (CHATML.replace("<|im_end|>", "{{ loop.index }}") + BEGIN, True, ""),
        (None, True, ""),
    ],
    ids=["chatml", "default-system", "gemma", "refusing", "numbered-turns", "none"],
)
def test_modelfile_has_the_chat_template_with_ollamas_fields(template: str | None, thinking: bool, lines: str):
    special = ["<bos>", "<start_of_turn>", "<end_of_turn>"]
    tokenizer = tiny_tokenizer(template, special=special, bos_token="<bos>")
    assert modelfile_lines(tokenizer, thinking, None) == lines + STOPS
