"""The model that answers in rankings."""

from __future__ import annotations

from pathlib import Path

import pytest
from support.answering_model import make_answering_model


@pytest.fixture(scope="session")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_answering_model(tmp_path_factory.mktemp("models") / "answering")
