"""Random explanations of random graphs, and slow answers to what selection should do."""

import numpy as np
import torch
from hypothesis import strategies as st
from torch_geometric.data import Data

from skgnnx.graphs import Entries, Explanations, Instances

SCORES = np.array([-1.0, -0.25, 0.0, 1e-3, 0.25, 0.5, 0.5 * (1 + 4e-6), 0.5 * (1 + 8e-6), 0.5 * (1 + 3e-5), 1.0])


def random_graph(rng, num_nodes, num_pairs, undirected, loops):
    """Edges in random order, with repeated ones."""
    ends = rng.integers(num_nodes, size=(2, num_pairs))
    ends = ends[:, ends[0] != ends[1]]
    if undirected:
        ends = np.concatenate([ends, ends[::-1]], axis=1)
    loop = rng.integers(num_nodes, size=loops)
    ends = np.concatenate([ends, np.stack([loop, loop])], axis=1)
    ends = ends[:, rng.permutation(ends.shape[1])]
    x = torch.from_numpy(rng.normal(size=(num_nodes, 3)).astype(np.float32))
    weight = torch.from_numpy(rng.normal(size=ends.shape[1]).astype(np.float32))
    return Data(x=x, edge_index=torch.from_numpy(ends), edge_weight=weight, name=f"g{num_nodes}")


def random_instances(rng, level, n, undirected=None):
    def draw():
        both_ways = rng.random() < 0.7 if undirected is None else undirected
        return random_graph(rng, int(rng.integers(1, 7)), int(rng.integers(0, 9)), both_ways, int(rng.integers(0, 3)))

    ids = [f"m{i}" for i in range(n)]
    if level == "graph":
        return Instances.from_graphs([draw() for _ in range(n)], ids=ids)
    data = draw()
    names = [f"v{v}" for v in range(data.num_nodes)]
    if level == "node":
        return Instances.from_nodes(data, rng.integers(data.num_nodes, size=n), target=1, ids=ids, node_ids=names)
    pairs = rng.integers(data.num_nodes, size=(2, n))
    return Instances.from_edges(data, pairs, ids=ids, node_ids=names, exclude_link=True)


def random_entries(rng, X, kind, share):
    """Scores of a part of every graph; loops are not explained."""
    if kind == "feature":
        return Entries(None, None, rng.choice(SCORES, size=(len(X), 3)))
    ids, explained = [], []
    for i in range(len(X)):
        length = X.num_units("edge" if kind == "edge" else "node", i)
        ids.append(np.flatnonzero(rng.random(length) < share))
        ends = X.store.edges(X.graph_index[i])
        explained.append(ends[0, ids[-1]] != ends[1, ids[-1]] if kind == "edge" else np.ones(len(ids[-1]), dtype=bool))
    ptr = np.cumsum([0] + [len(part) for part in ids])
    size = (ptr[-1], 3) if kind == "node_feature" else ptr[-1]
    values = rng.choice(SCORES, size=size)
    explained = np.concatenate(explained)
    values[~explained] = 0
    return Entries(ptr, np.concatenate(ids), values, explained if kind == "edge" else None)


def random_explanations(seed, kinds=("edge",), level="graph", n=4, share=0.8, failed=True, undirected=None):
    rng = np.random.default_rng(seed)
    X = random_instances(rng, level, n, undirected)
    errors = [f"reason {i}" if failed and rng.random() < 0.25 else None for i in range(n)]
    extras = {
        "walks": [[(int(i), "a"), rng.normal(size=int(rng.integers(0, 4)))] for i in range(n)],
        "spread": [None if error else float(rng.normal()) for error in errors],
        "count": [np.int64(i) for i in range(n)],
    }
    return Explanations(
        X,
        {kind: random_entries(rng, X, kind, share) for kind in kinds},
        kinds[0],
        targets=rng.integers(3, size=n),
        errors=errors,
        extras=extras,
        sparsity=0.6,
        model_digest="0123",
        explainer="SomeExplainer",
        params={"epochs": 3, "model": None, "mask": "edge"},
        box={"output": "logits", "threshold": 0.5, "forward": None},
    )


def explanations(kinds=None, **fixed):
    """Strategy: explanations of every kind and level, with failed ones, empty ones and ties."""
    one = st.sampled_from(
        [("edge",), ("node",), ("feature",), ("node_feature",), ("edge", "feature"), ("node", "edge")]
    )
    options = {
        "seed": st.integers(0, 10**6),
        "kinds": one if kinds is None else st.just(kinds),
        "level": st.sampled_from(["graph", "node", "edge"]),
        "n": st.integers(1, 5),
        "share": st.sampled_from([0.0, 0.6, 1.0]),
        "undirected": st.sampled_from([None, True, False]),
    }
    options |= {key: st.just(value) for key, value in fixed.items()}
    return st.builds(random_explanations, **options)


def slow_units(E, i, kind):
    """Units of one instance as (tie key, places in the stored entries, score), by a plain loop."""
    if E.errors[i] is not None:
        return []
    ids, values = E.entries(i, kind)
    if kind == "feature":
        return [((f,), [f], float(values[f])) for f in range(len(values))]
    if kind == "node_feature":
        return [((v, f), [(r, f)], float(values[r, f])) for r, v in enumerate(ids) for f in range(values.shape[1])]
    if kind == "node":
        return sorted(((int(v),), [r], float(values[r])) for r, v in enumerate(ids))
    ends = [tuple(pair) for pair in E.instances.store.edges(E.instances.graph_index[i]).T.tolist()]
    counts = {pair: ends.count(pair) for pair in ends if pair[0] != pair[1]}
    undirected = all(counts.get((b, a), 0) == count for (a, b), count in counts.items())
    found = {}
    for r, e in enumerate(ids):
        a, b = ends[e]
        occurrence = ends[:e].count((a, b))
        if a != b:
            key = (min(a, b), max(a, b), occurrence) if undirected else (a, b, occurrence)
            found.setdefault(key, []).append(r)
    return sorted(
        (key, places, float(np.mean([values[r] for r in places], dtype=np.float64))) for key, places in found.items()
    )


def slow_ranking(listed):
    """Units from the best to the worst: groups within 1e-5 of their first, the tie key inside a group."""
    rest = sorted(listed, key=lambda unit: -unit[2])
    ranked = []
    while rest:
        limit = rest[0][2] - 1e-5 * abs(rest[0][2])
        group = [unit for unit in rest if unit[2] >= limit]
        rest = rest[len(group) :]
        ranked += sorted(group)
    return ranked
