"""Command `train`: check settings and sources before torch and Ray are loaded."""

from histo.learn.fit.history import History
from histo.pipelines.training.checks import check_place, earlier_record
from histo.pipelines.training.data import read_training_source
from histo.pipelines.training.spec import TrainSpec
from histo.run.say import say


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
    from histo.pipelines.training.job import train_source  # noqa: PLC0415 -- it loads torch and Ray

    return train_source(spec, source, history, earlier)
