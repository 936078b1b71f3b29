"""Fetch models from the Hugging Face Hub."""

from __future__ import annotations

from functools import lru_cache
from pathlib import Path

import httpx2
from huggingface_hub import HfApi, snapshot_download
from huggingface_hub.errors import HfHubHTTPError, HFValidationError, OfflineModeIsEnabled

from mlx_grpo.data.hub import SECONDS, check_token, refusals_as_user_error

CARD_SOURCES = ("LICENSE*", "README.md")
"""Files that an export's card quotes; a model runs without them."""

DOUBLES = ("*/*", "model.*.safetensors")
"""Files that are never fetched: what is in folders of a repository, and the weights again in another dtype."""


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
    remedy = "check the name, your connection, or give a local folder"
    with refusals_as_user_error(f"model: {model!r} is no folder here and", remedy, unreachable):
        return Path(
            snapshot_download(
                model,
                allow_patterns=list(files),
                ignore_patterns=list(DOUBLES),
                local_files_only=unreachable is not None,
            )
        )
