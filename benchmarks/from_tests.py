"""Fabricated studies and huge slides of the tests; this is the one place that puts `tests` on the path."""

import sys
from pathlib import Path

sys.path.append(str(Path(__file__).resolve().parents[1] / "tests"))

from fabricated.huge import write_huge
from fabricated.studies import fabricate_studies

__all__ = ["fabricate_studies", "write_huge"]
