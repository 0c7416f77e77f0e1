"""`python benchmarks/kuberay_schema.py CRD.yaml`: hold the recipe for Kubernetes against the schema of its resource.

`CRD.yaml` is KubeRay's `helm-chart/kuberay-operator/crds/ray.io_rayjobs.yaml`. Prints each misfit; exit code 1 if there
is one. A field that the schema does not know is a misfit, too, which Kubernetes would leave out without a word.
"""

import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import jsonschema
import yaml

RECIPE = Path(__file__).resolve().parents[1] / "configs" / "cluster" / "kuberay.yaml"


def strict(schema: Any) -> Any:
    """Return a schema that admits no fields but its own."""
    if isinstance(schema, list):
        return [strict(item) for item in schema]
    if not isinstance(schema, dict):
        return schema
    inner = {name: strict(value) for name, value in schema.items()}
    if isinstance(schema.get("properties"), dict) and schema["properties"].get("metadata") != {"type": "object"}:
        inner.setdefault("additionalProperties", False)
    if schema.get("x-kubernetes-int-or-string"):
        inner.pop("type", None)
    return inner


def misfits(crd: Path) -> Iterator[str]:
    """Yield what is wrong with the recipe."""
    recipe = yaml.safe_load(RECIPE.read_text())
    versions = yaml.safe_load(crd.read_text())["spec"]["versions"]
    version = recipe["apiVersion"].partition("/")[2]
    (schema,) = (known["schema"]["openAPIV3Schema"] for known in versions if known["name"] == version)
    for error in jsonschema.Draft7Validator(strict(schema)).iter_errors(recipe):
        yield f"{'.'.join(map(str, error.absolute_path))}: {error.message}"


if __name__ == "__main__":
    found = list(misfits(Path(sys.argv[1])))
    print("\n".join(found) or f"{RECIPE.name} fits")
    sys.exit(bool(found))
