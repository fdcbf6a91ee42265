"""Relevance by hand: every layer as one dense matrix, every unit for itself. Nothing here knows the package."""

import numpy as np
import torch
from torch import nn
from torch_geometric.nn import GATConv, GCNConv, GINConv, SAGEConv, global_add_pool

NODES, INPUTS, HIDDEN, CLASSES = 5, 3, 4, 3


def shared(matrix, bias, x, R, rule, size=0.0):
    """Return what each input of a layer gets of the relevances R of its units, and what its biases get."""
    to_inputs, to_biases = np.zeros(len(x)), 0.0
    for j in range(len(R)):
        parts = [matrix[j, i] * x[i] for i in range(len(x))]
        z = sum(parts) + bias[j]
        if rule in ("zplus", "mass"):
            parts, own = [max(part, 0) for part in parts], 0.0
            divisor = sum(parts)
        elif rule == "gamma":
            keep = (lambda v: max(v, 0)) if z > 0 else (lambda v: min(v, 0))
            parts, own = [part + size * keep(part) for part in parts], bias[j] + size * keep(bias[j])
            divisor = sum(parts) + own
        else:
            own, divisor = bias[j], z + (size * np.sign(z) if rule == "epsilon" else 0)
        given = 0.0
        for i in range(len(x)):
            if divisor != 0:
                to_inputs[i] += parts[i] / divisor * R[j]
                given += parts[i] / divisor * R[j]
        to_biases += R[j] - given
    return to_inputs, to_biases


class Layer:
    """A matrix and a bias, or a ReLU where there is no matrix; `number` counts graph convolutions, None is plain."""

    def __init__(self, matrix=None, bias=None, number=None):
        self.matrix, self.number = matrix, number
        self.bias = None if matrix is None else np.zeros(len(matrix)) if bias is None else bias

    def __call__(self, x):
        return np.maximum(x, 0) if self.matrix is None else self.matrix @ x + self.bias


def adjacency(edge_index, loops=False):
    """A[i, j] is the number of edges from j to i."""
    A = np.eye(NODES) * loops
    for source, target in edge_index.T.tolist():
        A[target, source] += 1
    return A


def tensor(value):
    return value.detach().numpy()


def gcn(conv, edge_index, number, x):
    A = adjacency(edge_index, loops=True)
    D = np.diag(A.sum(1) ** -0.5)
    return [Layer(np.kron(D @ A @ D, tensor(conv.lin.weight)), np.tile(tensor(conv.bias), NODES), number)]


def sage(conv, edge_index, number, x):
    A = adjacency(edge_index)
    mean = A / np.maximum(A.sum(1, keepdims=True), 1)
    matrix = np.kron(mean, tensor(conv.lin_l.weight)) + np.kron(np.eye(NODES), tensor(conv.lin_r.weight))
    return [Layer(matrix, np.tile(tensor(conv.lin_l.bias), NODES), number)]


def gin(conv, edge_index, number, x):
    total = np.kron(adjacency(edge_index, loops=True), np.eye(len(x) // NODES))
    first, _, last = conv.nn

    def each(linear):
        return Layer(np.kron(np.eye(NODES), tensor(linear.weight)), np.tile(tensor(linear.bias), NODES), number)

    return [Layer(total), each(first), Layer(), each(last)]


def gat(conv, edge_index, number, x):
    A = adjacency(edge_index, loops=True)
    heads, width = conv.heads, conv.out_channels
    weight, nodes = tensor(conv.lin.weight), x.reshape(NODES, -1)
    matrix = np.zeros((NODES * heads * width, len(x)))
    for head in range(heads):
        rows = weight[head * width : (head + 1) * width]
        ahead = nodes @ rows.T @ tensor(conv.att_src)[0, head]
        behind = nodes @ rows.T @ tensor(conv.att_dst)[0, head]
        for i in range(NODES):
            raw = {j: ahead[j] + behind[i] for j in range(NODES) if A[i, j]}
            weights = {j: A[i, j] * np.exp(v if v > 0 else 0.2 * v) for j, v in raw.items()}
            for j, v in weights.items():
                block = v / sum(weights.values()) * rows
                at = (i * heads + head) * width
                matrix[at : at + width, j * len(rows.T) : (j + 1) * len(rows.T)] += block
    return [Layer(matrix, np.tile(tensor(conv.bias), NODES), number)]


CONVS = {
    "gcn": (GCNConv, gcn),
    "sage": (SAGEConv, sage),
    "gin": (lambda i, o: GINConv(nn.Sequential(nn.Linear(i, o), nn.ReLU(), nn.Linear(o, o))), gin),
    "gat": (lambda i, o: GATConv(i, o // 2, heads=2), gat),
}


class TwoLayers(nn.Module):
    """Two convolutions, a sum over the nodes and a Linear, with random biases."""

    def __init__(self, kind):
        super().__init__()
        make, self.dense = CONVS[kind]
        self.convs = nn.ModuleList([make(INPUTS, HIDDEN), make(HIDDEN, HIDDEN)])
        self.head = nn.Linear(HIDDEN, CLASSES)
        for name, parameter in self.named_parameters():
            if name.endswith("bias"):
                nn.init.uniform_(parameter, -0.5, 0.5)

    def forward(self, x, edge_index, batch=None):
        for conv in self.convs:
            x = conv(x, edge_index).relu()
        return self.head(global_add_pool(x, batch))


def layers(model, x, edge_index):
    """Return the layers of a network and what goes into each."""
    found, inputs, h = [], [], x.reshape(-1)
    for number, conv in enumerate(model.convs):
        for layer in [*model.dense(conv, edge_index, number, h), Layer()]:
            found.append(layer)
            inputs.append(h)
            h = layer(h)
    head = Layer(tensor(model.head.weight), tensor(model.head.bias), "head")
    for layer in (Layer(np.kron(np.ones(NODES), np.eye(HIDDEN))), head):
        found.append(layer)
        inputs.append(h)
        h = layer(h)
    return found, inputs, h


def relevance(model, x, edge_index, target, rule_of):
    """Return relevances (N, F) and the share of biases; ``rule_of(number)`` returns the rule and the size."""
    found, inputs, scores = layers(model, x, edge_index)
    R, biases = np.zeros(CLASSES), 0.0
    R[target] = scores[target]
    for layer, h in zip(reversed(found), reversed(inputs), strict=True):
        if layer.matrix is not None:
            rule = ("zero", 0.0) if layer.number is None else rule_of(layer.number)
            R, own = shared(layer.matrix, layer.bias, h, R, *rule)
            biases += own
    return R.reshape(NODES, -1), biases


def random_network(kind, seed):
    """Return a network, node features with signs, and edges without loops or repetitions."""
    torch.manual_seed(seed)
    model = TwoLayers(kind).double().eval()
    edges = torch.randint(NODES, (2, 9)).unique(dim=1)
    return model, torch.randn(NODES, INPUTS, dtype=torch.float64), edges[:, edges[0] != edges[1]]
