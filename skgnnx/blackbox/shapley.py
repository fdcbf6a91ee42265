"""Shapley values of sets of nodes, each as one player: weights of coalitions, all of them or paired draws."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from scipy.special import beta

from skgnnx.blackbox.coalitions import Coalitions
from skgnnx.graphs.connected_sets import Connections


def shapley_weights(num_others: int) -> np.ndarray:
    r"""Return the weight of one coalition of each size in the Shapley value of a player.

    Of :math:`p` other players, a coalition of :math:`s` weighs :math:`s! (p - s)! / (p + 1)!`; over all coalitions that
    sums to 1.

    Parameters
    ----------
    num_others : int >= 0
        Number of other players, :math:`p`.

    Returns
    -------
    ndarray of shape (num_others + 1,)
    """
    size = np.arange(num_others + 1)
    return beta(size + 1, num_others - size + 1)


class Arrivals:
    """Who is there before a player arrives, of any player among the nodes of one graph.

    In each draw every node arrives at a random moment and the player at another, which gives random permutations of any
    number of players: the same for all that are compared. The moments of the player are spread evenly over the draws,
    and draws come in pairs that mirror each other (antithetic); estimates stay unbiased, and their variance falls.

    Parameters
    ----------
    of_nodes : ndarray of shape (n, ceil(num_draws / 2))
        Moments of the nodes, uniform in (0, 1).
    of_player : ndarray of shape (ceil(num_draws / 2),)
        Where within its share of the draws the player arrives, uniform in (0, 1).
    num_draws : int >= 1
        Number of draws; where there are no more coalitions than this, all of them are taken instead, exactly.
    """

    def __init__(self, of_nodes: np.ndarray, of_player: np.ndarray, num_draws: int) -> None:
        moment = (np.arange(len(of_player)) + of_player) / num_draws
        earlier = moment[:, None] > of_nodes.T
        self._ahead = np.concatenate([earlier, ~earlier[: num_draws // 2]])
        self.num_draws = num_draws

    def coalitions(self, others: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Return coalitions that a player may join, and how much each counts.

        Parameters
        ----------
        others : ndarray of bool, shape (n,)
            The other players among the nodes.

        Returns
        -------
        coalitions : ndarray of bool, shape (D, n)
        weights : ndarray of shape (D,)
            They sum to 1.
        """
        number = int(others.sum())
        if number > np.log2(self.num_draws):
            return self._ahead & others, np.full(self.num_draws, 1 / self.num_draws)
        chosen = (np.arange(2**number)[:, None] >> np.arange(number)) & 1 == 1
        coalitions = np.zeros((2**number, len(others)), dtype=bool)
        coalitions[:, others] = chosen
        return coalitions, shapley_weights(number)[chosen.sum(axis=1)]


class Comparison(NamedTuple):
    """What a Shapley value is made of.

    Parameters
    ----------
    joined, alone : ndarray of int, shape (D,)
        Numbers of coalitions with the player, and of the same without it.
    weights : ndarray of shape (D,)
        How much the difference of each pair counts.
    """

    joined: np.ndarray
    alone: np.ndarray
    weights: np.ndarray


class SetValues:
    """Shapley values of sets of nodes of one instance, each set one player beside the single nodes around it.

    Nodes farther away than `hops`, and nodes that cannot reach the prediction, are in every coalition.

    Parameters
    ----------
    coalitions : Coalitions
        Where values of coalitions come from.
    target : int
        Of which target.
    connections : Connections
        Neighbours in the graph of the instance.
    reached : ndarray of bool, shape (n,)
        Nodes that can be players.
    arrivals : Arrivals
        Draws of coalitions.
    hops : int >= 1
        How far players are from a set.
    """

    def __init__(
        self,
        coalitions: Coalitions,
        target: int,
        connections: Connections,
        reached: np.ndarray,
        arrivals: Arrivals,
        hops: int,
    ) -> None:
        self.coalitions = coalitions
        self.connections = connections
        self.reached = reached
        self._target, self._arrivals, self._hops = target, arrivals, hops

    @property
    def most(self) -> int:
        """The largest number of coalitions that a value is made of."""
        return 2 * self._arrivals.num_draws

    def comparisons(self, sets: np.ndarray) -> list[Comparison]:
        """Return what the values of K sets (K, n) are made of, without asking the model."""
        found = []
        for own, near in zip(sets, self.connections.within(sets, self._hops), strict=True):
            others = near & self.reached & ~own
            ahead, weights = self._arrivals.coalitions(others)
            alone = ahead | ~(others | own)
            numbers = self.coalitions.numbers(np.concatenate([alone | own, alone]))
            found.append(Comparison(numbers[: len(alone)], numbers[len(alone) :], weights))
        return found

    def of(self, comparison: Comparison) -> float:
        """Return a Shapley value, once the model has been asked."""
        joined, alone = (
            self.coalitions.values(numbers, self._target) for numbers in (comparison.joined, comparison.alone)
        )
        return float((comparison.weights * (joined - alone)).sum())

    def everybody(self) -> np.ndarray:
        """Return the number of the coalition of all nodes (1,)."""
        return self.coalitions.numbers(np.ones((1, self.coalitions.num_nodes), dtype=bool))

    def value(self, number: np.ndarray) -> float:
        """Return what is known of one coalition, told by its number (1,)."""
        return float(self.coalitions.values(number, self._target)[0])
