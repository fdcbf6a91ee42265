"""Small networks with random weights, awkward graphs, and metrics by plain loops over one instance at a time."""

import numpy as np
import torch
from torch_geometric.data import Data
from torch_geometric.nn import GCNConv, GINConv, GraphConv, SAGEConv, global_add_pool, global_mean_pool

from skgnnx import Instances, RandomExplainer
from skgnnx.graphs import Entries, Explanations

CONVS = {
    "gcn": GCNConv,
    "graph": GraphConv,
    "sage": SAGEConv,
    "gin": lambda a, b: GINConv(torch.nn.Sequential(torch.nn.Linear(a, b), torch.nn.Tanh(), torch.nn.Linear(b, b))),
}
COLUMNS = 3


class Network(torch.nn.Module):
    """Two convolutions and a linear layer, for graphs, nodes or links."""

    def __init__(self, level="graph", conv="gcn", columns=COLUMNS, seed=0):
        super().__init__()
        with torch.random.fork_rng():
            torch.manual_seed(seed)
            self.first, self.second = CONVS[conv](3, 6), CONVS[conv](6, 6)
            self.last = torch.nn.Linear(6, columns)
            for parameter in self.parameters():  # large enough for probabilities that move
                torch.nn.init.normal_(parameter, std=0.8)
        self.level = level
        self.pool = global_add_pool if conv == "gin" else global_mean_pool

    def forward(self, x, edge_index, batch=None, edge_label_index=None, edge_weight=None):
        weight = () if edge_weight is None else (edge_weight,)
        h = self.second(self.first(x, edge_index, *weight).tanh(), edge_index, *weight)
        if self.level == "graph":
            h = self.pool(h, batch)
        elif self.level == "edge":
            h = h[edge_label_index[0]] * h[edge_label_index[1]]
        return self.last(h)


def random_graph(rng, num_nodes, num_pairs, undirected, loops):
    """Edges in random order: pairs or single ones, repeated ones, loops; nodes without an edge."""
    ends = rng.integers(num_nodes, size=(2, num_pairs))
    ends = ends[:, ends[0] != ends[1]]
    if undirected:
        ends = np.concatenate([ends, ends[::-1]], axis=1)
    loop = rng.integers(num_nodes, size=loops)
    ends = np.concatenate([ends, np.stack([loop, loop])], axis=1)
    ends = ends[:, rng.permutation(ends.shape[1])]
    x = torch.from_numpy(rng.normal(size=(num_nodes, 3)).astype(np.float32))
    return Data(x=x, edge_index=torch.from_numpy(ends))


def random_instances(seed, level="graph", n=4, undirected=None, truth=None):
    rng = np.random.default_rng(seed)

    def draw(most):
        pairs_only = rng.random() < 0.6 if undirected is None else undirected
        return random_graph(rng, int(rng.integers(1, most)), int(rng.integers(0, 12)), pairs_only, int(rng.integers(3)))

    if level == "graph":
        return Instances.from_graphs([draw(7) for _ in range(n)])
    data = draw(14)
    if level == "node":
        return Instances.from_nodes(data, rng.integers(data.num_nodes, size=n))
    return Instances.from_edges(data, rng.integers(data.num_nodes, size=(2, n)))


def random_explanations(seed, level="graph", kind="edge", conv="gcn", n=4, **options):
    """Random scores of random graphs, with the network they are about."""
    X = random_instances(seed, level, n, **options)
    model = Network(level, conv, seed=seed)
    return RandomExplainer(model, mask=kind, random_state=seed, sparsity=0.6, output="logits").explain(X)


def slow_units(E, i, kind=None):
    """Units of one instance as lists of positions among its entries, in tie-breaking order, and their scores."""
    kind = kind or E.kind
    ids, values = E.entries(i, kind)
    if kind == "feature":
        return [[(f,)] for f in range(len(values))], values.astype(float)
    if kind == "node_feature":
        units = [[(r, f)] for r in np.argsort(ids) for f in range(values.shape[1])]
        return units, np.array([float(values[unit[0]]) for unit in units])
    if kind == "node":
        units = [[(int(r),)] for r in np.argsort(ids)]
        return units, np.array([float(values[unit[0]]) for unit in units])
    found = {}
    for r, key in enumerate(unit_keys(E, i)[ids]):
        if key is not None:
            found.setdefault(key, []).append((r,))
    units = [found[key] for key in sorted(found)]
    return units, np.array([np.mean([float(values[r]) for r in unit]) for unit in units])


def unit_keys(E, i):
    """For every edge of the user's graph the key of its unit, None for a loop."""
    X = E.instances
    ends = [tuple(pair) for pair in X.store.edges(X.graph_index[i]).T.tolist()]
    counts = {pair: ends.count(pair) for pair in ends}
    undirected = all(counts.get((b, a), 0) == count for (a, b), count in counts.items())
    keys = np.empty(len(ends), dtype=object)
    for e, (a, b) in enumerate(ends):
        pair = (min(a, b), max(a, b)) if undirected else (a, b)
        keys[e] = None if a == b else (*pair, ends[:e].count((a, b)))
    return keys


def slow_selection(E, i, sparsity):
    """Positions among the entries that stay, and those that can be taken out at all."""
    units, scores = slow_units(E, i)
    n = len(units)
    tenths = round(sparsity * 1000)
    keep = 0 if tenths == 1000 else min(n, max(1, (2 * (1000 - tenths) * n + 1000) // 2000))
    order = sorted(range(n), key=lambda u: -scores[u])[:keep]
    return {place for u in order for place in units[u]}, {place for unit in units for place in unit}


def predict(model, data, X, i, target=None, **changed):
    """Probability of the target (or all outputs), with one call of the network on one graph."""
    inputs = {"x": data.x, "edge_index": data.edge_index, "batch": torch.zeros(len(data.x), dtype=torch.long)}
    if X.level == "edge":
        inputs["edge_label_index"] = torch.from_numpy(X.element[i])[:, None]
    with torch.no_grad():
        output = model(**(inputs | changed))
    output = output[X.element[i, 0]] if X.level == "node" else output[0]
    return output if target is None else float(output.double().softmax(0)[target])


def slow_change(E, i, gone, removal=None):
    """f(G) - f(G without the entries at some positions) for the target of one instance, by plain PyG calls."""
    X, model, target = E.instances, E.model, int(E.targets[i])
    data = X.store.graph(X.graph_index[i])
    full = predict(model, data, X, i, target)
    ids = E.entries(i)[0]
    changed = data.clone()
    if E.kind == "edge" and removal == "weight":
        weight = torch.ones(data.num_edges)
        weight[[int(ids[r]) for (r,) in gone]] = 0
        return full - predict(model, data, X, i, target, edge_weight=weight)
    if E.kind == "edge":
        kept = torch.ones(data.num_edges, dtype=torch.bool)
        kept[[int(ids[r]) for (r,) in gone]] = False
        changed.edge_index = data.edge_index[:, kept]
    elif E.kind == "feature":
        changed.x[:, [f for (f,) in gone]] = 0
    elif E.kind == "node_feature":
        for r, f in gone:
            changed.x[int(ids[r]), f] = 0
    elif removal == "induced":
        return full - induced_prediction(E, i, data, [int(ids[r]) for (r,) in gone])
    else:
        changed.x[[int(ids[r]) for (r,) in gone]] = 0
    return full - predict(model, changed, X, i, target)


def induced_prediction(E, i, data, gone):
    X, target = E.instances, int(E.targets[i])
    kept = torch.ones(data.num_nodes, dtype=torch.bool)
    kept[gone] = False
    if X.level != "graph":
        kept[torch.from_numpy(X.element[i])] = True
    if not kept.any():
        data.edge_index, data.x = data.edge_index[:, :0], torch.zeros_like(data.x)
        return predict(E.model, data, X, i, target)
    if X.level == "graph":
        return predict(E.model, data.subgraph(kept), X, i, target)
    data.edge_index = data.edge_index[:, kept[data.edge_index].all(dim=0)]  # nodes may stay where nothing pools them
    return predict(E.model, data, X, i, target)


def random_truth(E, seed, share=0.4):
    """One mask per instance; some are unknown, some empty, some full, some with alternatives."""
    rng = np.random.default_rng(seed)
    truth = []
    for i in range(len(E)):
        length = E.instances.num_units(E.kind, i)
        masks = [rng.random(length) < rng.choice([share, share, 0, 1]) for _ in range(rng.choice([1, 1, 2]))]
        truth.append(None if rng.random() < 0.2 else masks[0] if len(masks) == 1 else masks)
    return truth


def with_ties(E, seed):
    """The same explanations with few distinct scores."""
    rng = np.random.default_rng(seed)
    entries = E.stored()
    return E._with(masks={E.kind: entries.with_values(rng.choice([0.25, 0.5, 1.0], size=entries.values.shape))})


def slow_truth(E, i, mask, over):
    """Scores and truth of every unit, by dictionaries."""
    ids, _ = E.entries(i)
    units, scores = slow_units(E, i)
    if E.kind != "edge":
        keys = [int(ids[unit[0][0]]) for unit in units]
        score, true = dict(zip(keys, scores)), {u: bool(mask[u]) for u in range(len(mask))}
    else:
        of_edge = unit_keys(E, i)
        keys = [of_edge[ids[unit[0][0]]] for unit in units]
        score = dict(zip(keys, scores))
        true = {}
        for e, key in enumerate(of_edge):
            if key is not None:
                true[key] = true.get(key, False) or bool(mask[e])
    if over == "all":
        keys = sorted(true)
    if E.kind == "node" and E.instances.level != "graph":
        keys = [key for key in keys if key not in E.instances.element[i]]
    return np.array([score.get(key, 0.0) for key in keys]), np.array([true[key] for key in keys], dtype=bool)


def slow_values(E, truth, over, value, both_classes=True):
    found = []
    for i, masks in enumerate(truth):
        values = []
        for mask in [] if masks is None else masks if isinstance(masks, list) else [masks]:
            scores, true = slow_truth(E, i, mask, over)
            if true.any() and not (both_classes and true.all()):
                values.append(value(true, scores))
        found.append(max(values, default=np.nan))
    return np.array(found)


def path(scores, truth=None, level="graph"):
    """A path of three edges, both directions, with a loop first: edges 1 and 2, 3 and 4, 5 and 6 are pairs."""
    edge_index = torch.tensor([[1, 0, 1, 1, 2, 2, 3], [1, 1, 0, 2, 1, 3, 2]])
    data = Data(x=torch.ones(4, 1), edge_index=edge_index)
    X = Instances.from_graphs([data], truth=truth) if level == "graph" else Instances.from_nodes(data, [0], truth=truth)
    kind = "edge" if len(scores) == 7 else "node"
    return Explanations(X, {kind: Entries([0, len(scores)], np.arange(len(scores)), scores)}, kind, targets=[0])


def marked(*edges):
    return np.isin(np.arange(7), edges)
