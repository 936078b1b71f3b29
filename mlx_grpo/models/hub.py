"""What is said to the Hugging Face Hub: models fetched, exports pushed, and in words what to do where it refuses.

Tokens are huggingface_hub's own (`hf auth login` or HF_TOKEN); nothing here prints or writes one. Large files go up by
Xet where hf_xet is installed: that path has not been run. The tests run the LFS one (HF_HUB_DISABLE_XET=1).
"""

from __future__ import annotations

import logging
import re
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import TypeVar

import httpx2
from huggingface_hub import CommitOperationAdd, HfApi, constants, get_session, get_token, snapshot_download
from huggingface_hub.errors import (
    GatedRepoError,
    HfHubHTTPError,
    HFValidationError,
    LocalEntryNotFoundError,
    OfflineModeIsEnabled,
    RepositoryNotFoundError,
)
from huggingface_hub.utils import disable_progress_bars, validate_repo_id

from mlx_grpo.errors import UserError

PAPERS = ("LICENSE*", "README.md")
"""What an export's card is written from; a model runs without them."""

T = TypeVar("T")
Report = Callable[[str], None]

SECONDS = 10
"""How long the Hub may take for a small answer; huggingface_hub's client waits for ever unless told otherwise."""
LIMITS = httpx2.Timeout(60, connect=SECONDS)
"""For uploads and commits."""
WAITS = (1, 4)
"""Seconds before a call whose connection was cut is made again."""
TOKENS = "https://huggingface.co/settings/tokens"
LOGIN = f"run `hf auth login`, or set HF_TOKEN to a token with write access ({TOKENS})"


@dataclass(frozen=True, slots=True)
class Pushed:
    """Where an export went."""

    url: str
    commit: str


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


def check_options(formats: Sequence[str], repo: str | None, private: bool, dry_run: bool) -> None:
    """Raise UserError, before anything is written, where an export's options for the Hub don't go together."""
    if (private or dry_run) and not repo:
        raise UserError("export: --private and --dry-run belong to --push; add --push USER/NAME")
    if repo and "hf" not in formats:
        raise UserError("--push: uploads what --hf writes; add --hf, and leave other formats for a run of their own")
    if repo:
        check_push(repo, private, send=not dry_run)


def check_push(repo: str, private: bool, send: bool = True) -> None:
    """Raise UserError, within seconds and before anything is written, where a push to `repo` could not succeed.

    Without `send` only the name is checked, and nobody is asked.
    """
    try:
        validate_repo_id(repo)
    except HFValidationError:
        raise UserError(f"--push: {repo!r} is no name of a repository; give USER/NAME") from None
    if "/" not in repo:
        raise UserError(f"--push: {repo!r} lacks its owner; give USER/{repo}")
    if not send:
        return
    if get_token() is None:
        raise UserError(f"--push: not logged in to the Hub; {LOGIN}")
    check_token()
    with _in_words(repo):
        get_session().timeout = SECONDS
        account = HfApi().whoami()
        public = private and _is_public(repo)
    if account.get("auth", {}).get("accessToken", {}).get("role") == "read":
        raise UserError(f"--push {repo}: this token may only read; {LOGIN}")
    if public:
        raise UserError(
            f"--private: {repo} exists already and is public; give another name, or make it private in its settings"
        )


def _is_public(repo: str) -> bool:
    try:
        return not HfApi().model_info(repo, timeout=SECONDS).private
    except RepositoryNotFoundError:
        return False


def push(folder: Path, files: Sequence[str], repo: str, private: bool, report: Report) -> Pushed:
    """Put exactly `files` of `folder` into the model repository `repo`, made where there is none, as one commit.

    What a cut connection left undone is done again; files that the Hub has are not sent twice.
    """
    logging.getLogger("huggingface_hub.utils._http").addFilter(_without_signatures)
    if not sys.stderr.isatty():
        disable_progress_bars()  # a log file is no place for them
    api = HfApi()

    def commit() -> Pushed:
        # Made anew for each attempt: the operations remember what the Hub had before.
        operations = [CommitOperationAdd(name, folder / name) for name in files]
        made = api.create_commit(repo, operations, commit_message="Upload with mlx-grpo")
        return Pushed(url, made.oid)

    with _in_words(repo):
        url = str(_retried(lambda: api.create_repo(repo, private=private or None, exist_ok=True), report))
        return _retried(commit, report)


def _retried(call: Callable[[], T], report: Report) -> T:
    """The result of `call`, made again where its connection was cut."""
    for wait in WAITS:
        try:
            return _unwrapped(call)
        except httpx2.TransportError as error:
            report(f"the connection to the Hub was cut ({_network(error)}); trying again in {wait} s")
            time.sleep(wait)
    return _unwrapped(call)


def _unwrapped(call: Callable[[], T]) -> T:
    """The result of `call`, under the time limits; what the client wraps around a failed upload is taken off."""
    get_session().timeout = LIMITS
    try:
        return call()
    except RuntimeError as error:
        if isinstance(error.__cause__, httpx2.HTTPError):
            raise error.__cause__ from None
        raise


@contextmanager
def _in_words(repo: str) -> Iterator[None]:
    """Turn what the Hub or the network refuses into a UserError that names the remedy."""
    try:
        yield
    except OfflineModeIsEnabled:
        raise UserError(f"--push {repo}: HF_HUB_OFFLINE is set; unset it to push") from None
    except (HfHubHTTPError, httpx2.TransportError) as error:
        raise UserError(f"--push {repo}: {_words(error)}; {_remedy(error)}") from None


def _remedy(error: Exception) -> str:
    if not isinstance(error, HfHubHTTPError):
        return "check your connection and run the command again; what is there already is not sent twice"
    return {
        401: f"it may be mistyped, revoked or expired: {LOGIN}",
        403: "use a token with write access there, or a name under your own account",
        404: "check the name, and that its owner exists and is you or an organization of yours",
    }.get(error.response.status_code, "run the command again later; what is there already is not sent twice")


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


def _without_signatures(record: logging.LogRecord) -> bool:
    """Cut the query off the addresses in the client's log, since an upload's address carries its signature."""
    record.msg, record.args = re.sub(r"\?[^\s']+", "", record.getMessage()), ()
    return True
