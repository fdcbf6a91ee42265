"""Everything runs where the model is, and gives there what it gives on the processor."""

import copy
import itertools

import numpy as np
import pytest
import torch

from skgnnx import GNNExplainer, InputXGradient, SensitivityAnalysis
from skgnnx.blackbox.repeating import FEWEST_CALLS
from skgnnx.metrics import fidelity_plus
from skgnnx.testing.drawing import Seeded, draw_instances
from skgnnx.testing.networks import CONVS

pytestmark = [
    pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device"),
    pytest.mark.filterwarnings("ignore:Self loops cannot:UserWarning", "ignore:Network mixes:UserWarning"),
]
EXPLAINERS = {
    "gradient": lambda model: SensitivityAnalysis(model, mask="edge"),
    "product": lambda model: InputXGradient(model, mask="edge"),
    "learned": lambda model: GNNExplainer(model, epochs=FEWEST_CALLS, init_mean=0.0),
    "features": lambda model: GNNExplainer(model, epochs=3, init_mean=0.0, feature_mask="node_feature"),
}


@pytest.mark.parametrize("method", EXPLAINERS)
def test_a_model_on_a_graphics_card_is_explained_there(method):
    for seed, (conv, level) in enumerate(itertools.product(CONVS, ["node", "graph", "edge"])):
        model, X = draw_instances(Seeded(seed), level, convs=(conv,), categories=False)
        tolerance = 1e-8 if model.head.weight.dtype == torch.float64 else 1e-4
        here = EXPLAINERS[method](model).explain(X)
        there = EXPLAINERS[method](copy.deepcopy(model).to("cuda")).explain(X)
        assert np.array_equal(here.targets, there.targets)
        for kind, entries in here.masks.items():
            np.testing.assert_allclose(there.masks[kind].values, entries.values, rtol=0, atol=tolerance)
        assert here.path == there.path
        assert here.extras.get("steps") == there.extras.get("steps")
        np.testing.assert_allclose(fidelity_plus(here), fidelity_plus(there), rtol=0, atol=tolerance)


def test_a_model_stays_where_it_is():
    model, X = draw_instances(Seeded(0), "node", convs=("gcn",), categories=False)
    model = model.to("cuda")
    GNNExplainer(model, epochs=3).explain(X)
    assert {parameter.device.type for parameter in model.parameters()} == {"cuda"}
