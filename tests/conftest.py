"""Fixtures that every part of the tests shares."""

from pathlib import Path

import pytest

ASSETS = Path(__file__).parents[1].parent / "shared" / "assets"


@pytest.fixture(scope="session")
def assets() -> Path:
    """The folder of real face videos and real weights, which lies beside the repository."""
    if not ASSETS.is_dir():
        pytest.skip(f"the real videos and weights are not here ({ASSETS} is absent)")
    return ASSETS
