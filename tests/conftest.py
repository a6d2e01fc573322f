"""What tests share."""

import pytest

from pnpx.explainers import all_explainers


@pytest.fixture(scope="module")
def ours_alone(request):
    """Recommenders see the explainers of the package and of the test's own module: other tests define defective ones,
    which would count as the user's own."""

    def found():
        kinds = all_explainers().items()
        return {name: kind for name, kind in kinds if kind.__module__.startswith(("pnpx.", request.module.__name__))}

    with pytest.MonkeyPatch.context() as patch:
        for place in ("pnpx.recommender.picking", "pnpx.text.recommend"):
            patch.setattr(f"{place}.all_explainers", found)
        yield
