"""Fine-tune tissue and study classifiers, and label slides and studies with them.

On one machine or on a Ray cluster, by the same code.

Read a room from its door, `histo/pipelines/COMMAND.py`, in the order of the data:

    label    collection -> slide -> tissue mask -> grid -> regions -> tiles -> probabilities -> parts
             -> one file per slide
    train    sources -> inspection -> split -> batches -> loop (a generator of epochs) -> checkpoints -> bundle
    evaluate sources -> inspection -> probabilities -> metrics -> pictures
    crossval sources -> inspection -> folds -> a training run for each -> predictions of all -> metrics -> pictures
    volumes  studies -> series -> slices -> framing -> intensity -> one file per study

Rooms, from the top: `pipelines` (commands; with `run` the only rooms that import Ray), `run` (lock, record, ledger,
Ray), `report` (pictures), `slides`, `volumes` and `learn` (strangers to each other), and the files beneath them.
`docs/architecture.md` has a line for each file.
"""

import sys
from typing import TYPE_CHECKING

if sys.argv[0].endswith("default_worker.py"):  # of Ray, whose path begins with folders of the user
    from histo.own_path import leave_out_folders

    leave_out_folders()

if TYPE_CHECKING:
    __version__: str
    """The version of the installed package."""
else:

    def __getattr__(name: str) -> str:
        """Look the version up where it is asked for; most processes never ask."""
        if name != "__version__":
            raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
        from importlib import metadata  # noqa: PLC0415 -- see above

        return metadata.version(__name__)
