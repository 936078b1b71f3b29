"""Ollama's Modelfile for a policy: its stop tokens, and its chat template in Ollama's own language."""

from __future__ import annotations

import re

from mlx_lm.tokenizer_utils import TokenizerWrapper

from mlx_grpo.data.chat import render, turn_end
from mlx_grpo.errors import UserError

SYSTEM, PROMPT, RESPONSE, NEXT = MARKS = ("SYSTEM-TEXT", "PROMPT-TEXT", "RESPONSE-TEXT", "NEXT-TEXT")
"""Contents of the messages whose places in a rendered chat are looked for."""


def modelfile_lines(tokenizer: TokenizerWrapper, enable_thinking: bool, today: str | None) -> str:
    """Return the lines after FROM: the chat template that the run trained with, and what ends a completion."""
    stops = [tokenizer.decode([i]) for i in sorted(tokenizer.eos_token_ids)]
    lines = _template_lines(tokenizer, enable_thinking, today)
    lines += [f'PARAMETER stop "{stop}"' for stop in stops if stop and '"' not in stop]
    return "".join(f"{line}\n" for line in lines)


def _template_lines(tokenizer: TokenizerWrapper, enable_thinking: bool, today: str | None) -> list[str]:
    """Return TEMPLATE, and SYSTEM where the chat has a default one; nothing where Ollama's fields can't say it.

    Two rendered chats show it: one with all roles, and one with a prompt alone.
    """
    roles = ("system", "user", "assistant", "user")
    chat = [{"role": role, "content": mark} for role, mark in zip(roles, MARKS, strict=True)]
    ends = turn_end(tokenizer)
    try:
        whole = _without_start(render(chat, tokenizer, enable_thinking, today), tokenizer)
        alone = _without_start(render(chat[1:2], tokenizer, enable_thinking, today), tokenizer)
    except UserError:
        return []
    parts = re.split("|".join(MARKS), whole)
    end = None if ends is None else re.match(re.escape(tokenizer.decode([ends])) + r"\s*", (parts[3:] or [""])[0])
    if len(parts) != 5 or end is None or "{{" in whole + alone or '"""' in whole + alone:
        return []
    first, after_system, _, between, last = parts
    user = between[end.end() :]  # what begins a user's turn
    if after_system.endswith(user):
        begin, finish = first, after_system.removesuffix(user)
        start = f"{{{{ if .System }}}}{begin}{{{{ .System }}}}{finish}{{{{ end }}}}{user}"
    elif first.endswith(user):  # Gemma's: the system message begins the user's
        begin, finish = first, after_system
        start = f"{begin}{{{{ if .System }}}}{{{{ .System }}}}{finish}{{{{ end }}}}"
    else:
        return []
    template = f'TEMPLATE """{start}{{{{ .Prompt }}}}{last}{{{{ .Response }}}}{end[0]}"""'
    if alone == f"{user}{PROMPT}{last}":
        return [template]
    default = re.fullmatch(re.escape(begin) + "(.*)" + re.escape(f"{finish}{user}{PROMPT}{last}"), alone, re.DOTALL)
    return [template, f'SYSTEM """{default[1]}"""'] if default else []


def _without_start(text: str, tokenizer: TokenizerWrapper) -> str:
    """Return a text without the beginning-of-sequence token that llama.cpp adds."""
    start = tokenizer.bos_token
    adds = bool(start) and tokenizer.encode("a")[:1] == [tokenizer.bos_token_id]
    return text.removeprefix(start) if adds else text
