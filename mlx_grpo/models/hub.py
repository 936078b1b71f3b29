"""What is said to the Hugging Face Hub: models fetched, exports pushed, and in words what to do where it refuses.

Tokens are huggingface_hub's own (`hf auth login` or HF_TOKEN); nothing here prints or writes one. Large files go up by
Xet where hf_xet is installed: that path has not been run. The tests run the LFS one (HF_HUB_DISABLE_XET=1).
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

PAPERS = ("LICENSE*", "README.md")
"""What an export's card is written from; a model runs without them."""


SECONDS = 10
"""How long the Hub may take for a small answer; huggingface_hub's client waits for ever unless told otherwise."""
TOKENS = "https://huggingface.co/settings/tokens"
LOGIN = f"run `hf auth login`, or set HF_TOKEN to a token with write access ({TOKENS})"


@lru_cache  # a command asks for its model several times, and an absent Hub takes its time
def download(model: str, files: tuple[str, ...]) -> Path:
    """The folder of a Hub model's newest snapshot, `files` (patterns) fetched; the cached one where the Hub is away.

    Raises UserError, within seconds where the Hub can't be reached, when the cache lacks it.
    """
    check_token()
    unreachable = None
    try:
        # snapshot_download falls back on its cache by itself, but waits for an answer as long as the network does.
        HfApi().model_info(model, timeout=SECONDS)
    except (httpx2.TransportError, OfflineModeIsEnabled) as error:
        unreachable = error
    except (HfHubHTTPError, HFValidationError):
        pass  # said again, and better, below
    wanted = [pattern for pattern in files if unreachable is None or pattern not in PAPERS]
    try:
        return Path(snapshot_download(model, allow_patterns=wanted, local_files_only=unreachable is not None))
    except (HFValidationError, LocalEntryNotFoundError, httpx2.HTTPError, OSError) as error:
        reason = _words(unreachable or error)
        cache = ", and the cache lacks it" if unreachable else ""
        raise UserError(
            f"model: {model!r} is no folder here and could not be had from the Hub ({reason}{cache}); "
            "check the name, your connection, or give a local folder"
        ) from None


def check_token() -> None:
    """Raise UserError where the token can't be sent at all; the client's own error would print it."""
    token = get_token()
    if token is not None and not (token.isascii() and token.isprintable()):
        raise UserError(f"the Hub's token holds characters that no token has; {LOGIN}")


def _words(error: Exception) -> str:
    """What went wrong, in a few words without the token."""
    if isinstance(error, OfflineModeIsEnabled):
        return "HF_HUB_OFFLINE is set"
    if isinstance(error, GatedRepoError):
        return "its owner asks for terms to be accepted on its page, and for a login: `hf auth login`"
    if isinstance(error, HfHubHTTPError):
        return _answer(error)
    if isinstance(error, httpx2.TransportError):
        return f"{constants.ENDPOINT} can't be reached: {_network(error)}"
    return _hidden(str(error).strip().split("\n")[0])


def _network(error: httpx2.TransportError) -> str:
    return _hidden(" ".join([type(error).__name__, *str(error).split()]))


def _answer(error: HfHubHTTPError) -> str:
    status = error.response.status_code
    if status == 401 and not isinstance(error, RepositoryNotFoundError):
        return "the Hub refuses the token (401)"
    if isinstance(error, RepositoryNotFoundError):
        return "there is no such repository, or it is private and your token may not see it"
    said = (error.server_message or "").split("\n")[0][:200]
    return _hidden(f"the Hub answers {status}{f', {said}' if said else ''}")


def _hidden(text: str) -> str:
    """`text` without the token, which an answer may repeat."""
    token = get_token()
    return text.replace(token, "<token>") if token else text
