"""Train: source -> split -> stream -> loop (a generator of epochs) -> checkpoints -> bundle -> evaluation."""

from histo.learn.history import History
from histo.pipelines.say import say
from histo.pipelines.train_checks import check_place, earlier_record
from histo.pipelines.train_data import read_training_source
from histo.pipelines.train_spec import TrainSpec


def train(spec: TrainSpec) -> int:
    """Run a training job; returns the exit code. What is wrong with the sources is said before torch and Ray load.

    Raises:
        HistoError: If the data or the settings are bad, or training failed.
    """
    history = History(spec.out)
    earlier = earlier_record(spec, "train", has_begun=bool(history.last))
    if earlier and earlier["exit_code"] == 0:
        say(f"{spec.out}: the run is complete; bundle: {spec.out / 'model'}")
        return 0
    check_place(spec, [*spec.data, *(spec.test or [])])
    source = read_training_source(spec)
    from histo.pipelines.train_job import train_source  # noqa: PLC0415 -- it loads torch and Ray

    return train_source(spec, source, history, earlier)
