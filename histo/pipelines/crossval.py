"""Cross-validate: sources -> folds -> a training run for each -> every case predicted by the run without it."""

from histo.pipelines.cases import FILE
from histo.pipelines.say import say
from histo.pipelines.train_checks import check_place, earlier_record
from histo.pipelines.train_data import read_training_source
from histo.pipelines.train_spec import CrossvalSpec


def crossval(spec: CrossvalSpec) -> int:
    """Run a cross-validation; returns the exit code. What is wrong with the sources is said before torch and Ray load.

    Raises:
        HistoError: If the data or the settings are bad, or training failed.
    """
    begun = (spec.out / FILE).exists()
    earlier = earlier_record(spec, "crossval", has_begun=begun)
    if earlier and earlier["exit_code"] == 0:
        say(f"{spec.out}: the cross-validation is complete")
        return 0
    check_place(spec, spec.data)
    source = read_training_source(spec.of_fold(0, workers=1))
    from histo.pipelines.crossval_job import crossval_source  # noqa: PLC0415 -- it loads torch and Ray

    return crossval_source(spec, source, earlier)
