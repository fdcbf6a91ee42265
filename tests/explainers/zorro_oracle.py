"""Zorro as its paper has it, for one instance: a forward pass of the whole graph for every candidate and every draw."""

from __future__ import annotations


class Loop:
    """Asks a model about changed features, one forward pass after the other.

    Parameters
    ----------
    answers : callable
        From node features (N, F) to whether the model still says what it says of the graph as it is.
    x : Tensor of shape (N, F)
    draws : list of Tensor of shape (N, F)
    """

    def __init__(self, answers, x, draws):
        self.answers, self.x, self.draws = answers, x, draws
        self.num_runs = 0

    def hits(self, nodes, features):
        """Return of how many draws the prediction is kept, if some nodes' features are known."""
        count = 0
        for drawn in self.draws:
            changed = drawn.clone()
            for v in nodes:
                for j in features:
                    changed[v, j] = self.x[v, j]
            count += bool(self.answers(changed))
            self.num_runs += 1
        return count


def greedy(loop, nodes, features, enough, most):
    """Return the selected nodes and features, in the order in which they were selected, and the draws that agree."""
    chosen_nodes, chosen_features = [], []
    hits = loop.hits([], [])
    if hits >= enough:
        return chosen_nodes, chosen_features, hits
    of_node = {v: loop.hits([v], features) for v in nodes}
    of_feature = {j: loop.hits(nodes, [j]) for j in features}
    rest_nodes = sorted(nodes, key=lambda v: (-of_node[v], v))
    rest_features = sorted(features, key=lambda j: (-of_feature[j], j))
    if of_feature[rest_features[0]] >= of_node[rest_nodes[0]]:
        chosen_features.append(rest_features.pop(0))
    else:
        chosen_nodes.append(rest_nodes.pop(0))
    while hits < enough and (rest_nodes or rest_features):
        best = None
        for j in rest_features[:most]:
            found = loop.hits(chosen_nodes, [*chosen_features, j])
            if best is None or found > best[0]:
                best = (found, "feature", j)
        for v in rest_nodes[:most]:
            found = loop.hits([*chosen_nodes, v], chosen_features)
            if best is None or found > best[0]:
                best = (found, "node", v)
        hits, kind, unit = best
        (chosen_features if kind == "feature" else chosen_nodes).append(unit)
        (rest_features if kind == "feature" else rest_nodes).remove(unit)
    return chosen_nodes, chosen_features, hits


def explanations(loop, nodes, features, enough, most, number):
    """Return up to a number of disjoint explanations, breadth first."""
    found, level = [], [(nodes, features)]
    while level:
        following = []
        for region_nodes, region_features in level:
            chosen_nodes, chosen_features, hits = greedy(loop, region_nodes, region_features, enough, most)
            found.append((sorted(chosen_nodes), sorted(chosen_features), hits))
            if chosen_nodes and chosen_features:
                following.append(([v for v in region_nodes if v not in chosen_nodes], region_features))
                following.append((region_nodes, [j for j in region_features if j not in chosen_features]))
        level = [region for region in following if loop.hits(*region) >= enough][: number - len(found)]
    return found
