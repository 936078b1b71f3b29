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

DOUBLES = ("*/*", "model.*.safetensors")
"""Files that are never fetched: what is in folders of a repository, and the weights again in another dtype."""

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
        files = tuple(pattern for pattern in files if pattern not in CARD_SOURCES)
    except (HfHubHTTPError, HFValidationError):
        pass  # the download below raises it again, with more words
    try:
        return Path(
            snapshot_download(
                model,
                allow_patterns=list(files),
                ignore_patterns=list(DOUBLES),
                local_files_only=unreachable is not None,
            )
        )
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
