"""Print a constraint for each package of pyproject.toml: the lowest version that it admits."""

import re
import tomllib
from itertools import chain
from pathlib import Path


def lowest(requirement: str) -> str | None:
    """Turn `name[extra]>=1.2,<2` into `name==1.2`; None where no lowest version is named."""
    found = re.match(r"([\w.-]+)(?:\[[\w,-]+\])?>=([\w.]+)", requirement)
    return f"{found[1]}=={found[2]}" if found else None


if __name__ == "__main__":
    project = tomllib.loads((Path(__file__).resolve().parents[1] / "pyproject.toml").read_text())["project"]
    requirements = chain(project["dependencies"], *project["optional-dependencies"].values())
    print("\n".join(sorted({found for each in requirements if (found := lowest(each)) is not None})))
