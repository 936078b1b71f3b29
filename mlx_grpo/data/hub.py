"""What models, data sets and pushes share when they ask the Hugging Face Hub: the token, and what a refusal means.

The token is huggingface_hub's own (`hf auth login` or HF_TOKEN); nothing here prints or writes it.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import httpx2
from huggingface_hub import constants, get_token
from huggingface_hub.errors import (
    GatedRepoError,
    HfHubHTTPError,
    HFValidationError,
    LocalEntryNotFoundError,
    OfflineModeIsEnabled,
    RepositoryNotFoundError,
)

from mlx_grpo.errors import UserError

SECONDS = 10
"""Longest wait for a small answer of the Hub; by default huggingface_hub's client waits for ever."""
TOKENS = "https://huggingface.co/settings/tokens"
LOGIN = f"run `hf auth login`, or set HF_TOKEN to a token with write access ({TOKENS})"


@contextmanager
def refusals_as_user_error(subject: str, remedy: str, unreachable: Exception | None = None) -> Iterator[None]:
    """Turn what the Hub's client raises into a UserError: the subject, the reason, and the remedy.

    `unreachable` is the error of an earlier request, where the Hub's cache alone is asked now.
    """
    try:
        yield
    except (HFValidationError, LocalEntryNotFoundError, httpx2.HTTPError, OSError) as error:
        reason = describe_error(unreachable or error)
        cache = ", and the cache lacks it" if unreachable else ""
        raise UserError(f"{subject} could not be had from the Hub ({reason}{cache}); {remedy}") from None


def check_token() -> None:
    """Raise UserError if the token can't be sent at all; the client's own error would print it."""
    token = get_token()
    if token is not None and not (token.isascii() and token.isprintable()):
        raise UserError(f"the Hub's token holds characters that no token has; {LOGIN}")


def describe_error(error: Exception) -> str:
    """Describe an error in a few words, in one line and without the token, which the Hub's answer may repeat."""
    text, token = _describe(error), get_token()
    return text.replace(token, "<token>") if token else text


def _describe(error: Exception) -> str:
    if isinstance(error, OfflineModeIsEnabled):
        return "HF_HUB_OFFLINE is set"
    if isinstance(error, httpx2.TransportError):
        return " ".join([f"{constants.ENDPOINT} can't be reached: {type(error).__name__}", *str(error).split()])
    if isinstance(error, GatedRepoError):
        return "its owner asks for terms to be accepted on its page, and for a login: `hf auth login`"
    if isinstance(error, RepositoryNotFoundError):
        return "there is no such repository, or it is private and your token may not see it"
    if not isinstance(error, HfHubHTTPError):
        return str(error).strip().split("\n")[0]
    if error.response.status_code == 401:
        return "the Hub refuses the token (401)"
    message = (error.server_message or "").split("\n")[0][:200]
    return f"the Hub answers {error.response.status_code}{f', {message}' if message else ''}"
