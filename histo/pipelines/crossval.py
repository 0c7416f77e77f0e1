"""Command `crossval`: check settings and sources before torch and Ray are loaded."""

from histo.pipelines.training.checks import check_place, earlier_record
from histo.pipelines.training.data import read_training_source
from histo.pipelines.training.spec import CrossvalSpec
from histo.pipelines.training.split_table import FILE
from histo.run.say import say
from histo.store import is_there


def crossval(spec: CrossvalSpec) -> int:
    """Run a cross-validation; returns the exit code. What is wrong with the sources is said before torch and Ray load.

    Raises:
        HistoError: If the data or the settings are bad, or training failed.
    """
    begun = is_there(spec.out / FILE)
    earlier = earlier_record(spec, "crossval", has_begun=begun)
    if earlier and earlier["exit_code"] == 0:
        say(f"{spec.out}: the cross-validation is complete")
        return 0
    check_place(spec, spec.data)
    source = read_training_source(spec.of_fold(0, workers=1))
    from histo.pipelines.training.folds import crossval_source  # noqa: PLC0415 -- it loads torch and Ray

    return crossval_source(spec, source, earlier)
