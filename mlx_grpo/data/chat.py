"""Chat messages to a prompt's text: what a message says is data, and can't end its turn or begin another.

The tokenizer reads its special tokens anywhere in a text, so `<|im_end|>` in a résumé would end the user's turn. In
every message such a token gets a blank after its first character, `< |im_end|>`, and is plain text from then on.
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
    """What is wrong with a prompt's messages, in a phrase with its remedy; None where nothing is."""
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
    """The messages by the model's chat template, ready for the completion; their own special tokens are broken.

    Raises UserError where the model has no template, or the template refuses the messages.
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
    # A template may refuse an order of roles, or what else a message has; that may be nested without end.
    except (TemplateError, TypeError, RecursionError) as error:
        raise UserError(f"the model's chat template does not take these messages ({error}); change them") from None


def as_data(value: Any, tokenizer: TokenizerWrapper) -> Any:
    """A text, or every text inside lists and objects, in which the tokenizer finds none of its `markers`."""
    if isinstance(value, list):
        return [as_data(item, tokenizer) for item in value]
    if isinstance(value, dict):
        return {as_data(key, tokenizer): as_data(item, tokenizer) for key, item in value.items()}
    if not isinstance(value, str):
        return value
    before = None
    while value != before:  # a token may stand inside what is left of another
        before, value = value, markers(tokenizer).sub(lambda found: f"{found[0][0]} {found[0][1:]}", value)
    return value


@lru_cache(maxsize=4)
def markers(tokenizer: TokenizerWrapper) -> re.Pattern[str]:
    """The tokens that data may not bring: the special ones, and added ones that the chat template writes.

    DeepSeek's `<｜User｜>` is no special token, and yet begins a turn. Marks of a thought stay what they are: they end
    no turn, and a system message may well ask for them.
    """
    template = str(tokenizer.chat_template)
    thoughts = (tokenizer.think_start, tokenizer.think_end)
    found = {
        token.content
        for token in tokenizer.added_tokens_decoder.values()
        if (token.special or token.content in template) and token.content not in thoughts
    }
    # One letter, or a letter and blanks, mark nothing; the longest first, where one begins with another.
    telling = sorted((token for token in found if token[1:2].strip()), key=len, reverse=True)
    return re.compile("|".join(map(re.escape, telling)) or r"(?!)")
