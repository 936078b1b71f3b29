"""Uploading an export to the Hugging Face Hub, with a remedy in words where the Hub refuses.

Large files go by Xet if hf_xet is installed: that path has not been run. The tests run the LFS one
(HF_HUB_DISABLE_XET=1).
"""

from __future__ import annotations

import logging
import re
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Literal, TypeVar

import httpx2
from huggingface_hub import CommitInfo, CommitOperationAdd, HfApi, get_session, get_token
from huggingface_hub.errors import HfHubHTTPError, HFValidationError, OfflineModeIsEnabled, RepositoryNotFoundError
from huggingface_hub.utils import disable_progress_bars, validate_repo_id

from mlx_grpo.data.hub import LOGIN, SECONDS, check_token, describe_error
from mlx_grpo.errors import UserError

T = TypeVar("T")
RepoType = Literal["model", "space"]
Report = Callable[[str], None]

LIMITS = httpx2.Timeout(60, connect=SECONDS)
"""For uploads and commits."""
WAITS = (1, 4)
"""Seconds before a call whose connection was cut is made again."""


def check_options(
    formats: Sequence[str], repo: str | None, private: bool, dry_run: bool, model: str | None = None
) -> None:
    """Raise UserError, before anything is written, where an export's options for the Hub don't go together.

    `model` is the repository that a Space asks, None where it has the Space's own name.
    """
    if model and "space" not in formats:
        raise UserError(f"--model {model}: names the model that a Space asks; add --space, or leave it out")
    if (private or dry_run) and not repo:
        raise UserError("export: --private and --dry-run belong to --push; add --push USER/NAME")
    if repo and formats not in (("hf",), ("space",)):
        raise UserError("--push: uploads what --hf writes; add --hf, and leave other formats for a run of their own")
    if model:
        _check_name(model, "--model")
    if repo and "space" in formats:
        check_push(repo, private, not dry_run, "space", model or repo)
    elif repo:
        check_push(repo, private, send=not dry_run)


def _check_name(repo: str, option: str) -> None:
    try:
        validate_repo_id(repo)
    except HFValidationError:
        raise UserError(f"{option}: {repo!r} is no name of a repository; give USER/NAME") from None
    if "/" not in repo:
        raise UserError(f"{option}: {repo!r} lacks its owner; give USER/{repo}")


def check_push(
    repo: str, private: bool, send: bool = True, repo_type: RepoType = "model", model: str | None = None
) -> None:
    """Raise UserError, within seconds and before anything is written, where a push to `repo` could not succeed.

    Without `send` only the name is checked, and the Hub is not called. `model` is one that must be there already.
    """
    _check_name(repo, "--push")
    if not send:
        return
    if get_token() is None:
        raise UserError(f"--push: not logged in to the Hub; {LOGIN}")
    check_token()
    with _in_words(repo):
        get_session().timeout = SECONDS
        account = HfApi().whoami()
        public = private and _is_public(repo, repo_type)
        lacking = model and _is_public(model) is None
    if account.get("auth", {}).get("accessToken", {}).get("role") == "read":
        raise UserError(f"--push {repo}: this token may only read; {LOGIN}")
    if public:
        raise UserError(
            f"--private: {repo} exists already and is public; give another name, or make it private in its settings"
        )
    if lacking:
        raise UserError(
            f"--space: the Hub has no model {model}, or your token may not see it; run "
            f"`mlx-grpo export --hf --push {model}` first, or name another with --model"
        )


def _is_public(repo: str, repo_type: RepoType = "model") -> bool | None:
    """Return True if a repository of the Hub is public, None where there is none that the token may see."""
    try:
        return not HfApi().repo_info(repo, repo_type=repo_type, timeout=SECONDS).private
    except RepositoryNotFoundError:
        return None


def push(
    folder: Path,
    files: Sequence[str],
    repo: str,
    private: bool,
    report: Report,
    repo_type: RepoType = "model",
) -> CommitInfo:
    """Upload exactly `files` of `folder` to the repository `repo`, made where there is none, as one commit.

    Calls whose connection was cut are made again; files that the Hub has are not sent twice.
    """
    logging.getLogger("huggingface_hub.utils._http").addFilter(_without_signatures)
    if not sys.stderr.isatty():
        disable_progress_bars()  # a log file is no place for them
    api = HfApi()

    def create() -> str:
        sdk = "gradio" if repo_type == "space" else None
        return api.create_repo(repo, private=private or None, exist_ok=True, repo_type=repo_type, space_sdk=sdk)

    def commit() -> CommitInfo:
        # Made anew for each attempt: the operations remember what the Hub had before.
        operations = [CommitOperationAdd(name, folder / name) for name in files]
        return api.create_commit(repo, operations, commit_message="Upload with mlx-grpo", repo_type=repo_type)

    with _in_words(repo):
        _retried(create, report)
        return _retried(commit, report)


def _retried(call: Callable[[], T], report: Report) -> T:
    """Return the result of `call`, made again where its connection was cut.

    huggingface_hub does so only for the files within a commit.
    """

    def attempt() -> T:
        get_session().timeout = LIMITS  # each time: a client whose connection failed is replaced
        return call()

    for wait in WAITS:
        try:
            return attempt()
        except httpx2.TransportError as error:
            report(f"the connection was cut ({describe_error(error)}); trying again in {wait} s")
            time.sleep(wait)
    return attempt()


@contextmanager
def _in_words(repo: str) -> Iterator[None]:
    """Turn an error of the Hub or the network into a UserError that names the remedy."""
    try:
        yield
    except (HfHubHTTPError, httpx2.TransportError, OfflineModeIsEnabled, RuntimeError) as error:
        # An upload that failed is wrapped in a RuntimeError.
        cause = error.__cause__ if isinstance(error, RuntimeError) else error
        if not isinstance(cause, httpx2.HTTPError | OfflineModeIsEnabled):
            raise
        raise UserError(f"--push {repo}: {describe_error(cause)}; {_remedy(cause)}") from None


def _remedy(error: Exception) -> str:
    if isinstance(error, OfflineModeIsEnabled):
        return "unset it to push"
    if not isinstance(error, HfHubHTTPError):
        return "check your connection and run the command again; what is there already is not sent twice"
    return {
        401: f"it may be mistyped, revoked or expired: {LOGIN}",
        403: "use a token with write access there, or a name under your own account",
        404: "check the name, and that its owner exists and is you or an organization of yours",
    }.get(error.response.status_code, "run the command again later; what is there already is not sent twice")


def _without_signatures(record: logging.LogRecord) -> bool:
    """Cut the query off the addresses in the client's log, since an upload's address carries its signature."""
    record.msg, record.args = re.sub(r"\?[^\s']+", "", record.getMessage()), ()
    return True
