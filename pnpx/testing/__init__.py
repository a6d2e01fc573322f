"""For those who write explainers: the properties that each must have, and small models to examine it on.

>>> from pnpx import SmoothGrad
>>> check_explainer(SmoothGrad, models=["linear"])

In a test suite each property is a test of its own::

    @pytest.mark.parametrize("examination", examinations(MyExplainer), ids=str)
    def test_my_explainer(examination):
        examination.run()
"""

from pnpx.testing.case import Case
from pnpx.testing.check import EVERY_MODEL, EVERY_PLACE, ONE_MODEL, check_explainer, examinations
from pnpx.testing.examination import Examination
from pnpx.testing.models import MODELS, available, case
from pnpx.testing.reference import Reference

__all__ = [
    "EVERY_MODEL",
    "EVERY_PLACE",
    "MODELS",
    "ONE_MODEL",
    "Case",
    "Examination",
    "Reference",
    "available",
    "case",
    "check_explainer",
    "examinations",
]
