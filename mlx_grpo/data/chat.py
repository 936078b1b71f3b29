"""Chat messages to a prompt's text: a message's content is data, and can't end its turn or begin another.

A tokenizer reads special tokens anywhere in a text, so that `<|im_end|>` in a résumé would end the user's turn. In
every message such a token gets a blank after its first character, `< |im_end|>`, which makes it plain text. So does
plain text that the template writes around a message, such as `[/INST]` (see `turn_marks`).
"""

from __future__ import annotations

import json
import re
from collections.abc import Sequence
from datetime import date
from functools import lru_cache
from typing import TYPE_CHECKING, Any

from jinja2 import TemplateError

from mlx_grpo.data.thinking import CLOSE, OPEN
from mlx_grpo.errors import UserError

if TYPE_CHECKING:  # an exported Space renders its prompts without MLX
    from mlx_lm.tokenizer_utils import TokenizerWrapper

ROLES = ("system", "developer", "user", "assistant", "tool")
OPENING, ANSWERED = ROLES[:2], ("user", "tool")
# A template may refuse an order of roles or other fields of a message, which may be nested without end. mlx-lm has a
# few templates in Python, which raise any of these.
REFUSALS = (TemplateError, TypeError, ValueError, LookupError, AssertionError, RuntimeError)
CONVERSATIONS = (
    ("system", "user", "assistant", "user"),
    ("user", "assistant", "user"),
    ("user", "assistant", "tool"),
    ("user",),
)
"""What `turn_marks` renders: some templates know no system message, others no tools, and a few one question alone."""
ENDING = (("user", "assistant"), ("system", "user", "assistant"))
"""What `turn_end` renders: some templates know no system message, and others ask for one."""
CLOCK = re.compile(r"""strftime_now\(\s*(['"])(.*?)\1\s*\)""")
FILLER = "Filler"
"""A word in place of a message's content, which no template changes."""
TAG = re.compile(r"<[^<>\n]{1,40}>|\[[^][\n]{1,40}\]|\{[^{}\n]{1,40}\}")


def messages_problem(messages: Sequence[Any]) -> str | None:
    """Describe the first fault in a prompt's messages, with its remedy; return None where there is none."""
    for place, message in enumerate(messages):
        if not isinstance(message, dict) or not isinstance(message.get("role"), str):
            return '`prompt` has a message without `role`; write {"role": ..., "content": ...}'
        if not isinstance(message.get("content"), str):
            return '`prompt` has a message whose `content` is not text; write {"role": ..., "content": ...}'
        if message["role"] not in ROLES:
            return f"`prompt` has the role {message['role'][:40]!r}; use one of {', '.join(ROLES)}"
        if message["role"] in OPENING and place > 0 and messages[place - 1]["role"] not in OPENING:
            return f"`prompt` has a {message['role']} message after others; move it to the front"
    if messages[-1]["role"] not in ANSWERED:
        return (
            f"`prompt` ends with the role {messages[-1]['role']}; end it with what the policy answers, a user message"
        )
    return None


def render(
    messages: Sequence[dict[str, Any]], tokenizer: TokenizerWrapper, enable_thinking: bool, today: str | None = None
) -> str:
    """Render messages by the model's chat template, up to the start of the completion.

    Special tokens inside the messages are broken. `today`, as in 2026-01-31, is the date of a template that writes one;
    None is the clock's. Raises UserError where the model has no template, or the template refuses the messages.
    """
    if not tokenizer.has_chat_template:
        raise UserError("the model has no chat template; give `prompt` as text, or a model tuned for chat")
    try:
        # One rendering serves models with and without a thinking mode: templates ignore variables they don't use.
        return tokenizer.apply_chat_template(
            as_data(list(messages), tokenizer),
            tokenize=False,
            add_generation_prompt=True,
            enable_thinking=enable_thinking,
            **_dated(tokenizer, today),
        )
    except REFUSALS as error:
        raise UserError(f"the model's chat template does not take these messages ({error}); change them") from None


def _dated(tokenizer: TokenizerWrapper, today: str | None) -> dict[str, str]:
    """Return the chat template with `today` in place of its calls of the clock, as an argument of its rendering.

    transformers keeps functions out of a template's variables, so that none of ours can replace its `strftime_now`.
    """
    template = tokenizer.chat_template
    if isinstance(template, dict):  # of several templates, transformers takes this one for a chat without tools
        template = template.get("default")
    if today is None or not isinstance(template, str) or not CLOCK.search(template):
        return {}
    day = date.fromisoformat(today)
    return {"chat_template": CLOCK.sub(lambda call: json.dumps(day.strftime(call[2])), template)}


def as_data(value: Any, tokenizer: TokenizerWrapper) -> Any:
    """Break the tokenizer's `markers` in a text, or in every text inside lists and objects."""
    if isinstance(value, list):
        return [as_data(item, tokenizer) for item in value]
    if isinstance(value, dict):
        return {as_data(key, tokenizer): as_data(item, tokenizer) for key, item in value.items()}
    if not isinstance(value, str):
        return value
    before = None
    while value != before:  # breaking one token may leave another
        before = value
        value = markers(tokenizer).sub(lambda match: f"{match[0][0]} {match[0][1:]}", value)
    return value


@lru_cache(maxsize=4)
def markers(tokenizer: TokenizerWrapper) -> re.Pattern[str]:
    """Return a pattern of what data may not contain: special tokens, added ones of the chat template, and turn marks.

    DeepSeek's `<｜User｜>` is no special token, and yet begins a turn. Marks of thinking are allowed: they end no turn,
    and a system message may well ask for them.
    """
    template = str(tokenizer.chat_template)
    tokens = {
        token.content for token in tokenizer.added_tokens_decoder.values() if token.special or token.content in template
    }
    marks = (tokens | turn_marks(tokenizer)) - {OPEN, CLOSE, tokenizer.think_start, tokenizer.think_end}
    # One letter, or a letter and blanks, mark nothing. The longest come first, since one may begin with another.
    kept = sorted((mark for mark in marks if mark[1:2].strip()), key=len, reverse=True)
    return re.compile("|".join(map(_whole, kept)) or r"(?!)")


def _whole(mark: str) -> str:
    """Return a pattern of a mark that is no end of a longer word."""
    return (r"(?<!\w)" if mark[0].isalnum() else "") + re.escape(mark)


def turn_marks(tokenizer: TokenizerWrapper) -> set[str]:
    """Return the plain text that the chat template writes around messages: `[/INST]`, `<|user|>`, `### Response:`.

    A mark is a tag in brackets, or a line between two messages with a sign that is no letter. A template's own words,
    such as the name of a role or a date, are none.
    """
    marks: set[str] = set()
    added = "|".join(re.escape(token.content) for token in tokenizer.added_tokens_decoder.values()) or r"(?!)"
    for roles in CONVERSATIONS:
        text = _try_render(roles, tokenizer)
        before, *around = re.split(rf"{FILLER}\d", text)
        marks |= set(TAG.findall(before))  # which may say more: a system message of its own, the date
        for line in re.split(rf"\n|{added}", "\n".join(around)):
            marks |= set(TAG.findall(line)) or ({line.strip()} if re.search(r"[^\w\s]", line) else set())
    return marks


@lru_cache(maxsize=4)
def turn_end(tokenizer: TokenizerWrapper) -> int | None:
    """Return the token with which the chat template ends an assistant's turn; None where it writes none.

    It may be another than the tokenizer's eos_token: Phi-3's template writes `<|end|>`, that of Qwen2.5's base
    `<|im_end|>`.
    """
    for roles in ENDING:
        _, _, after = _try_render(roles, tokenizer, add_generation_prompt=False).partition(f"{FILLER}{len(roles) - 1}")
        for token_id in tokenizer.encode(after, add_special_tokens=False):
            if token_id in tokenizer.added_tokens_decoder:
                return token_id
    return None


def _try_render(roles: Sequence[str], tokenizer: TokenizerWrapper, add_generation_prompt: bool = True) -> str:
    """Render a chat of numbered fillers; return "" where the template refuses it."""
    if not tokenizer.has_chat_template:
        return ""
    chat = [{"role": role, "content": f"{FILLER}{i}"} for i, role in enumerate(roles)]
    try:
        return tokenizer.apply_chat_template(
            chat, tokenize=False, add_generation_prompt=add_generation_prompt, enable_thinking=False
        )
    except REFUSALS:
        return ""
