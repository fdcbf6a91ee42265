"""Gradient methods agree with captum's, called through PyG for one prediction at a time."""

import numpy as np
import pytest
import torch
from torch import nn
from torch_geometric.data import Data
from torch_geometric.nn import GCNConv, GINConv, SAGEConv, global_mean_pool

from skgnnx import InputXGradient, Instances, IntegratedGradients, SensitivityAnalysis

CONVS = {
    "gcn": GCNConv,
    "sage": SAGEConv,
    "gin": lambda i, o: GINConv(nn.Sequential(nn.Linear(i, o), nn.ReLU(), nn.Linear(o, o))),
}
# both integrate with 50 steps here, whatever that leaves
FIFTY = {"n_steps": 50, "max_steps": 50, "tol": 10.0}
METHODS = {
    "Saliency": lambda model, mask: SensitivityAnalysis(model, mask=mask, norm="absolute"),
    "InputXGradient": lambda model, mask: InputXGradient(model, mask=mask),
    "IntegratedGradients": lambda model, mask: IntegratedGradients(model, mask=mask, **FIFTY),
}


class Net(nn.Module):
    """Two convolutions and a linear layer, for nodes or graphs."""

    def __init__(self, conv, level):
        super().__init__()
        torch.manual_seed(1)
        self.convs = nn.ModuleList([conv(4, 8), conv(8, 8)])
        self.out, self.level = nn.Linear(8, 3), level

    def forward(self, x, edge_index, batch=None):
        for conv in self.convs:
            x = conv(x, edge_index).relu()
        return self.out(global_mean_pool(x, batch) if self.level == "graph" else x)


def graph(seed, n=8, e=20):
    random = torch.Generator().manual_seed(seed)
    edge_index = torch.randint(n, (2, e), generator=random)
    edge_index = edge_index[:, edge_index[0] != edge_index[1]]
    return Data(x=torch.randn(n, 4, generator=random), edge_index=edge_index)


@pytest.mark.filterwarnings("ignore:Input Tensor .* did not already require gradients")  # captum's own remark
@pytest.mark.filterwarnings("ignore:.*weights_only:FutureWarning")
@pytest.mark.parametrize("level", ["node", "graph"])
@pytest.mark.parametrize("conv", CONVS)
@pytest.mark.parametrize("method", METHODS)
def test_node_features_agree(method, conv, level):
    pytest.importorskip("captum")
    from torch_geometric.explain import CaptumExplainer, Explainer

    model = Net(CONVS[conv], level).eval()
    graphs = [graph(seed) for seed in range(3)]
    X = Instances.from_graphs(graphs, 1) if level == "graph" else Instances.from_nodes(graphs[0], [1, 4, 6], 1)
    E = METHODS[method](model, "node_feature").explain(X)
    config = {"mode": "multiclass_classification", "task_level": level, "return_type": "raw"}
    theirs = Explainer(
        model, CaptumExplainer(method), explanation_type="phenomenon", node_mask_type="attributes", model_config=config
    )
    for i in range(len(X)):
        data = X[i].graph
        rows, index = (1, 0) if level == "graph" else (data.num_nodes, int(X[i].element))
        given = {"target": torch.ones(rows, dtype=torch.long), "index": index}
        expected = theirs(data.x, data.edge_index, **given).node_mask.detach().numpy()
        assert np.abs(expected).max() > 1e-3
        np.testing.assert_allclose(E[i], expected, rtol=1e-4, atol=1e-6)
