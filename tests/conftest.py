"""What every test shares: reproducible hypothesis examples and the folder of reference data."""

from __future__ import annotations

from pathlib import Path

import pytest
from hypothesis import settings

# Timing on a shared machine says nothing about the code, and a failure must be the same on every machine.
settings.register_profile("repository", deadline=None, derandomize=True)
settings.load_profile("repository")


@pytest.fixture(scope="session")
def shared() -> Path:
    """The folder ``../shared`` beside the repository: published tables and cached GPT-2 attention."""
    folder = Path(__file__).resolve().parents[2] / "shared"
    if not folder.is_dir():
        pytest.skip(f"the reference data is not in the repository, and {folder} is absent")
    return folder
