"""The files of a data set on the Hub: which of them hold a split, at which commit, fetched once."""

from __future__ import annotations

import difflib
import re
from collections.abc import Iterable
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path

import httpx2
from huggingface_hub import HfApi, snapshot_download
from huggingface_hub.errors import (
    LocalEntryNotFoundError,
    OfflineModeIsEnabled,
    RevisionNotFoundError,
)

from mlx_grpo.data.hub import SECONDS, check_token, refusals_as_user_error
from mlx_grpo.errors import UserError

HUB_ID = re.compile(r"\w[\w.-]*/\w[\w.-]*(@[\w.][\w./-]*)?", re.ASCII)
"""`org/name`, or `org/name@revision`."""
COMMIT = re.compile(r"[0-9a-f]{40}")
CONVERTED = "refs/convert/parquet"
"""The revision in which the Hub keeps a data set converted to parquet, whatever its own files are."""
FILE = re.compile(r"(?P<split>.+?)(-\d{5}-of-\d{5}(-[0-9a-f]+)?)?\.(?P<kind>parquet|jsonl|jsonl\.gz)")
NUMBERED = re.compile(r"\d{4}\.parquet")
KINDS = ("parquet", "jsonl", "jsonl.gz")
"""Kinds of files; of a split that is there in several, the first is read."""
REMEDY = "check the name, your connection, or give a JSONL file"


@dataclass(frozen=True, slots=True)
class Listing:
    """The files of a data set at one commit."""

    repo: str
    revision: str | None
    """The revision that was asked for: a branch, a tag, a commit, or None for main."""
    commit: str
    names: tuple[str, ...]
    unreachable: Exception | None
    """Why the cache alone was asked, where it was."""


@dataclass(frozen=True, slots=True)
class Split:
    """The files that hold a split."""

    listing: Listing
    files: tuple[str, ...]

    @property
    def pinned(self) -> str:
        """Return the data set's id with its commit, which names these files for ever."""
        return f"{self.listing.repo}@{self.listing.commit}"


def is_hub_id(name: str) -> bool:
    """Return True if a name can only be a data set on the Hub: it has the form of an id, and is no path here."""
    return bool(HUB_ID.fullmatch(name)) and not name.endswith((".jsonl", ".gz", ".json")) and not Path(name).exists()


@lru_cache  # a command asks for its rows several times, and an absent Hub takes its time
def find_split(key: str, name: str, subset: str | None, split: str) -> Split:
    """Find the files of a split of a data set: its own, or those that the Hub converted to parquet.

    If the Hub can't be reached, the cache is searched. Raises UserError, naming the config's `key`, where there are
    none.
    """
    repo, _, revision = name.partition("@")
    listing = _list_files(key, repo, revision or None)
    found = split_in(listing, subset, split)
    if found is None and not revision:
        converted = _list_files(key, repo, CONVERTED, listing.unreachable)
        found = split_in(converted, subset, split)
        listing = converted if converted.names else listing
    if found is None:
        with refusals_as_user_error(f"{key}: {repo!r} is no file or folder here and", REMEDY, listing.unreachable):
            if listing.unreachable:
                raise listing.unreachable
        raise UserError(_no_split(key, listing, subset, split))
    return found


def split_in(listing: Listing, subset: str | None, split: str) -> Split | None:
    """Return a split's files in a listing, None where it has none; raise UserError where several subsets have it."""
    layout = _layout(listing.names)
    subsets = [own for own, splits in layout.items() if split in splits]
    if subset is None and len(subsets) > 1 and "" not in subsets:
        raise UserError(f"data.subset: {listing.repo} has the subsets {', '.join(sorted(subsets))}; choose one of them")
    chosen = subset or ("" if "" in subsets else next(iter(subsets), ""))
    files = layout.get(chosen, {}).get(split)
    return Split(listing, tuple(files)) if files else None


def fetch(split: Split, key: str) -> list[Path]:
    """Return the paths of a split's files, in order; fetch what the cache lacks."""
    listing = split.listing
    # With a pattern for the numbers, the client notices a file that an interrupted download left out.
    patterns = sorted({re.sub(r"\d{4,5}", "*", file) for file in split.files})
    with refusals_as_user_error(f"{key}: {listing.repo}", REMEDY, listing.unreachable):
        folder = snapshot_download(
            listing.repo,
            repo_type="dataset",
            revision=listing.revision,
            allow_patterns=patterns,
            local_files_only=listing.unreachable is not None,
        )
    return [Path(folder) / file for file in split.files]


def _list_files(key: str, repo: str, revision: str | None, unreachable: Exception | None = None) -> Listing:
    """List a data set's files, none where the Hub has not converted it, or is out of reach and the cache has none.

    `unreachable` is the error of an earlier request, after which no other is made.
    """
    check_token()
    if unreachable is None:
        with refusals_as_user_error(f"{key}: {repo!r} is no file or folder here and", REMEDY):
            try:
                info = HfApi().dataset_info(repo, revision=revision, timeout=SECONDS)
                names = tuple(sorted(file.rfilename for file in info.siblings or ()))
                return Listing(repo, revision, str(info.sha), names, None)
            except (httpx2.TransportError, OfflineModeIsEnabled) as error:
                unreachable = error
            except RevisionNotFoundError:
                if revision != CONVERTED:
                    raise
                return Listing(repo, revision, "", (), None)
    try:
        folder = Path(
            snapshot_download(repo, repo_type="dataset", revision=revision, allow_patterns=[], local_files_only=True)
        )
    except LocalEntryNotFoundError:
        return Listing(repo, revision, "", (), unreachable)
    names = tuple(sorted(path.relative_to(folder).as_posix() for path in folder.rglob("*") if path.is_file()))
    return Listing(repo, revision, folder.name, names, unreachable)


def _layout(names: Iterable[str]) -> dict[str, dict[str, list[str]]]:
    """Return the files of each subset's splits; the subset without a name is ""."""
    kinds: dict[tuple[str, str], dict[str, list[str]]] = {}
    for name in names:
        *folders, file = name.split("/")
        match = FILE.fullmatch(file)
        if match is None:
            continue
        numbered = NUMBERED.fullmatch(file) and folders
        split = folders.pop() if numbered else match["split"]
        subset = "/".join(folder for folder in folders if folder not in ("data", "default"))
        kinds.setdefault((subset, split), {}).setdefault(match["kind"], []).append(name)
    layout: dict[str, dict[str, list[str]]] = {}
    for (subset, split), by_kind in kinds.items():
        layout.setdefault(subset, {})[split] = next(by_kind[kind] for kind in KINDS if kind in by_kind)
    return layout


def _no_split(key: str, listing: Listing, subset: str | None, split: str) -> str:
    """Return the error for a split that is not there, with those that are."""
    layout = _layout(listing.names)
    if not layout:
        return (
            f"{key}: {listing.repo} holds no files by the usual names (data/train-00000-of-00001.parquet, train.jsonl);"
            " download it, and give a JSONL file"
        )
    if subset is not None and subset not in layout:
        return f"data.subset: {listing.repo} has no subset {subset!r}; {_choices(subset, layout)}"
    splits = layout[subset] if subset is not None else {name for own in layout.values() for name in own}
    where = "data.heldout_split" if key == "data.heldout" else "data.split"
    return f"{where}: {listing.repo} has no split {split!r}; {_choices(split, splits)}"


def _choices(wanted: str, known: Iterable[str]) -> str:
    near = difflib.get_close_matches(wanted, known, n=1)
    return f"did you mean {near[0]}?" if near else f"it has {', '.join(sorted(known))}"
