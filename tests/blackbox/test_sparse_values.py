"""Messages sum up to what a layer's product with a weighted sparse matrix gives, whatever its features are."""

import pytest
import torch
from blackbox_cases import Stack, opened, seeded
from torch import nn
from torch_geometric.data import Data
from torch_geometric.nn import GINConv, GraphConv, SAGEConv
from torch_geometric.utils import to_torch_csr_tensor

from skgnnx import Instances

LAYERS = {
    "gin": lambda: GINConv(nn.Linear(2, 3)),
    "graph": lambda: GraphConv(2, 3),
    "sage": lambda: SAGEConv(2, 3),
    "sage max": lambda: SAGEConv(2, 3, aggr="max"),
}


class Weighted(Stack):
    def forward(self, x, adj_t):
        return super().forward(x, adj_t)


@pytest.mark.filterwarnings("ignore:Sparse")  # torch calls its sparse tensors a beta
@pytest.mark.parametrize("name", LAYERS)
def test_values_count_also_where_the_first_features_hide_them(name):
    into_first = torch.tensor([[0, 0, 0], [1, 2, 3]])
    adjacency = to_torch_csr_tensor(into_first, torch.tensor([2.0, 3.0, 0.5], dtype=torch.float64), size=(4, 4))
    X = Instances.from_nodes(Data(x=torch.zeros(4, 2, dtype=torch.float64), adj_t=adjacency), [0], target=1)
    with opened(seeded(lambda: Weighted(LAYERS[name]())).double(), X) as gnn:
        (batch,) = gnn.batches()
        ones = torch.ones(batch.num_edges, dtype=torch.float64)
        gnn.scores(batch, edge_mask=ones)
        x = torch.linspace(-2, 3, 2 * batch.num_nodes, dtype=torch.float64).view(-1, 2)
        torch.testing.assert_close(gnn.scores(batch, x=x, edge_mask=ones), gnn.scores(batch, x=x))
