"""Command `plan`: look at slides before they are labelled."""

from histo.errors import UsageError
from histo.pipelines.planning.spec import PlanSpec
from histo.run.say import say

__all__ = ["PlanSpec", "plan"]


def plan(spec: PlanSpec) -> int:
    """Plan a label run; returns 0, or 3 if some slides would fail.

    Raises:
        HistoError: If the settings are bad, or the slides cannot be looked at.
    """
    if spec.model is not None and spec.size_px is not None:
        raise UsageError("--size-px: the bundle of --model says how large its tiles are; leave one of them out")
    say(f"planning {spec.slides}; the plan goes to {spec.out}")
    from histo.pipelines.planning.job import plan_slides  # noqa: PLC0415 -- the line above comes first

    return plan_slides(spec)
