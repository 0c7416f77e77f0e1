"""Command `label`: send slides one way, and studies the other."""

from histo.learn.bundle import find_bundle, read_bundle
from histo.pipelines.labelling.spec import LabelSpec
from histo.pipelines.pictures.spec import ReportSpec
from histo.run.say import say

__all__ = ["LabelSpec", "label"]


def label(spec: LabelSpec) -> int:
    """Run a label job, or resume one; returns 0, or 3 if some slides are failed or partial, or some studies failed.

    Raises:
        HistoError: If the settings are bad, or the run cannot go on.
    """
    say(f"labelling {spec.studies or spec.slides} with {spec.model}; results go to {spec.out}")
    model = find_bundle(spec.model)
    with spec.cache.of(spec.read_timeout_s).local_folder(model) as copy:
        bundle = read_bundle(copy)
        if spec.studies is not None:
            from histo.pipelines.studies.label import label_studies  # noqa: PLC0415 -- slides do without its decoders

            return label_studies(spec, spec.studies, model, copy, bundle)
        from histo.pipelines.labelling.slides import label_slides  # noqa: PLC0415 -- the line above comes first

        assert spec.slides is not None, "one of the two is given"
        code = label_slides(spec, spec.slides, model, copy, bundle)
    if spec.pictures:
        from histo.pipelines.report import report  # noqa: PLC0415 -- labels do without what draws

        code = max(code, report(ReportSpec(out=spec.out, slides=spec.slides, read_timeout_s=spec.read_timeout_s)))
    return code
