"""Fetch models from the Hugging Face Hub, and say what to do when it refuses.

The token is huggingface_hub's own (`hf auth login` or HF_TOKEN); nothing here prints or writes it. Large files are
uploaded by Xet if hf_xet is installed: that path has not been run. The tests run the LFS one (HF_HUB_DISABLE_XET=1).
"""

from __future__ import annotations

from functools import lru_cache
from pathlib import Path

import httpx2
from huggingface_hub import HfApi, constants, get_token, snapshot_download
from huggingface_hub.errors import (
    GatedRepoError,
    HfHubHTTPError,
    HFValidationError,
    LocalEntryNotFoundError,
    OfflineModeIsEnabled,
    RepositoryNotFoundError,
)

from mlx_grpo.errors import UserError

CARD_SOURCES = ("LICENSE*", "README.md")
"""Files that an export's card quotes; a model runs without them."""

SECONDS = 10
"""Longest wait for a small answer of the Hub; by default huggingface_hub's client waits for ever."""
TOKENS = "https://huggingface.co/settings/tokens"
LOGIN = f"run `hf auth login`, or set HF_TOKEN to a token with write access ({TOKENS})"


@lru_cache  # a command asks for its model several times, and an absent Hub takes its time
def download(model: str, files: tuple[str, ...]) -> Path:
    """Fetch `files` (patterns) of a Hub model's newest snapshot and return its folder.

    If the Hub can't be reached, returns the cached snapshot. Raises UserError, within seconds, if there is none.
    """
    check_token()
    unreachable = None
    try:
        # snapshot_download falls back on its cache by itself, but waits for an answer as long as the network does.
        HfApi().model_info(model, timeout=SECONDS)
    except (httpx2.TransportError, OfflineModeIsEnabled) as error:
        unreachable = error
    except (HfHubHTTPError, HFValidationError):
        pass  # the download below raises it again, with more words
    wanted = [pattern for pattern in files if unreachable is None or pattern not in CARD_SOURCES]
    try:
        return Path(snapshot_download(model, allow_patterns=wanted, local_files_only=unreachable is not None))
    except (HFValidationError, LocalEntryNotFoundError, httpx2.HTTPError, OSError) as error:
        reason = describe_error(unreachable or error)
        cache = ", and the cache lacks it" if unreachable else ""
        raise UserError(
            f"model: {model!r} is no folder here and could not be had from the Hub ({reason}{cache}); "
            "check the name, your connection, or give a local folder"
        ) from None


def check_token() -> None:
    """Raise UserError if the token can't be sent at all; the client's own error would print it."""
    token = get_token()
    if token is not None and not (token.isascii() and token.isprintable()):
        raise UserError(f"the Hub's token holds characters that no token has; {LOGIN}")


def describe_error(error: Exception) -> str:
    """Describe an error in a few words, without the token."""
    if isinstance(error, OfflineModeIsEnabled):
        return "HF_HUB_OFFLINE is set"
    if isinstance(error, GatedRepoError):
        return "its owner asks for terms to be accepted on its page, and for a login: `hf auth login`"
    if isinstance(error, HfHubHTTPError):
        return _describe_http_error(error)
    if isinstance(error, httpx2.TransportError):
        return f"{constants.ENDPOINT} can't be reached: {describe_network_error(error)}"
    return _without_token(str(error).strip().split("\n")[0])


def describe_network_error(error: httpx2.TransportError) -> str:
    """Describe a failed connection in one line, without the token."""
    return _without_token(" ".join([type(error).__name__, *str(error).split()]))


def _describe_http_error(error: HfHubHTTPError) -> str:
    status = error.response.status_code
    if status == 401 and not isinstance(error, RepositoryNotFoundError):
        return "the Hub refuses the token (401)"
    if isinstance(error, RepositoryNotFoundError):
        return "there is no such repository, or it is private and your token may not see it"
    message = (error.server_message or "").split("\n")[0][:200]
    return _without_token(f"the Hub answers {status}{f', {message}' if message else ''}")


def _without_token(text: str) -> str:
    """Return `text` with the token replaced; the Hub's answer may repeat it."""
    token = get_token()
    return text.replace(token, "<token>") if token else text
