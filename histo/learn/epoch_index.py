"""Index of a training run's epochs, `checkpoints/index.json`.

It says how many epochs have ended, and which checkpoints are kept.
"""

from typing import Self

from pydantic import BaseModel, ConfigDict, Field, ValidationError, model_validator

from histo import store
from histo.errors import UsageError
from histo.remote.location import AnyPath

STATE = "state.pt"
"""In a checkpoint: what training goes on from, beside the weights."""


class EpochIndex(BaseModel):
    """What `index.json` says.

    Attributes:
        last: Number of the last epoch that has ended; 0 before the first.
        kept: Epochs that have a checkpoint, ascending; the last one that has ended is always among them.
    """

    model_config = ConfigDict(frozen=True, strict=True, extra="forbid")

    last: int = Field(default=0, ge=0, lt=2**31)
    kept: list[int] = []

    @model_validator(mode="after")
    def _keeps_what_has_ended(self) -> Self:
        """Refuse what no run writes: checkpoints that the index does not name are removed."""
        ascending = self.kept == sorted({epoch for epoch in self.kept if epoch > 0})
        if not ascending or self.kept[-1:] != ([self.last] if self.last else []):
            raise ValueError("the epochs that are kept end with the last one")
        return self


def index_path(run: AnyPath) -> AnyPath:
    """Where the index of a run is."""
    return run / "checkpoints" / "index.json"


def read_index(run: AnyPath) -> EpochIndex | None:
    """Read the index of a run; None if there is none.

    Raises:
        UsageError: If it is damaged.
    """
    path = index_path(run)
    try:
        return EpochIndex.model_validate_json(store.read_document(path))
    except (FileNotFoundError, NotADirectoryError):
        return None
    except OSError as error:
        raise UsageError(f"{path}: cannot be read ({error.strerror or error})") from None
    except ValidationError:
        raise UsageError(f"{path}: is damaged; put back a copy of it, or give another folder") from None


def write_index(run: AnyPath, index: EpochIndex) -> None:
    """Replace the index of a run in one step."""
    store.put_json(index_path(run), index.model_dump())
