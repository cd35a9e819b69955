import gzip
import json
from pathlib import Path
from typing import Any

import pytest


@pytest.fixture(scope="session")
def oracle() -> dict[str, list[dict[str, Any]]]:
    """Brute-force float64 values and gradients: `edl_expected`, `edl_soft`, `soft_label_ce`, `cdpo`."""
    path = Path(__file__).parents[1] / "data" / "losses_cases.json.gz"
    cases: dict[str, list[dict[str, Any]]] = json.loads(gzip.decompress(path.read_bytes()))
    return cases
