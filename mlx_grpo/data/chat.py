"""Chat messages to a prompt's text: a message's content is data, and can't end its turn or begin another.

A tokenizer reads special tokens anywhere in a text, so that `<|im_end|>` in a résumé would end the user's turn. In
every message such a token gets a blank after its first character, `< |im_end|>`, which makes it plain text.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from functools import lru_cache
from typing import Any

from jinja2 import TemplateError
from mlx_lm.tokenizer_utils import TokenizerWrapper

from mlx_grpo.errors import UserError

ROLES = ("system", "developer", "user", "assistant", "tool")
OPENING, ANSWERED = ROLES[:2], ("user", "tool")


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


def render(messages: Sequence[dict[str, Any]], tokenizer: TokenizerWrapper, enable_thinking: bool) -> str:
    """Render messages by the model's chat template, up to the start of the completion.

    Special tokens inside the messages are broken. Raises UserError where the model has no template, or the template
    refuses the messages.
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
        )
    # A template may refuse an order of roles or other fields of a message, which may be nested without end.
    except (TemplateError, TypeError, RecursionError) as error:
        raise UserError(f"the model's chat template does not take these messages ({error}); change them") from None


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
    """Return a pattern of the tokens that data may not contain: special tokens, and added ones of the chat template.

    DeepSeek's `<｜User｜>` is no special token, and yet begins a turn. Marks of thinking are allowed: they end no turn,
    and a system message may well ask for them.
    """
    template = str(tokenizer.chat_template)
    thoughts = (tokenizer.think_start, tokenizer.think_end)
    tokens = {
        token.content
        for token in tokenizer.added_tokens_decoder.values()
        if (token.special or token.content in template) and token.content not in thoughts
    }
    # One letter, or a letter and blanks, mark nothing. The longest come first, since one may begin with another.
    kept = sorted((token for token in tokens if token[1:2].strip()), key=len, reverse=True)
    return re.compile("|".join(map(re.escape, kept)) or r"(?!)")
