"""Which atoms make a network see a benzene ring? Gradients and relevance, with and without bond types.

Trains two graph neural networks on the same 1,200 molecules, one that reads bond types (GINE layers) and one that does
not (GIN), explains the test molecules in which they rightly see a ring by every method that goes backward, and compares
with the true rings. Prints a table, and leaves it in the output folder with pictures:

    python examples/benzene_atoms.py [--seed 0] [--seeds 1] [--output benzene_atoms_output] [--toy]
"""

import argparse
import io
import time
from pathlib import Path

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
from rdkit.Chem.Draw.rdMolDraw2D import MolDraw2DCairo

from skgnnx import (
    CAM,
    GNNLRP,
    LRP,
    ExcitationBP,
    GradCAM,
    GuidedBackprop,
    InputXGradient,
    IntegratedGradients,
    RandomExplainer,
    SensitivityAnalysis,
)
from skgnnx.datasets import load_benzene
from skgnnx.inspection import ExplanationDisplay
from skgnnx.inspection.molecules import find_molecule
from skgnnx.metrics import fidelity_minus, fidelity_plus, roc_auc
from skgnnx.models import GNNClassifier

NETWORKS = {"bond types": "gine", "no bond types": "gin"}
FULL = {"train": 1200, "test": 300, "epochs": 30, "drawn": 4}
TOY = {"train": 300, "test": 40, "epochs": 6, "drawn": 1}
WALKS = 10
SCALE = 40  # pixels per Angstrom


def explainers(network):
    """Return the methods of the table; they score atoms, but for the last one."""
    return {
        "random": RandomExplainer(network, mask="node"),
        "CAM": CAM(network),
        "GradCAM": GradCAM(network, variant="gradcam"),
        "GradCAM, hirescam": GradCAM(network, variant="hirescam"),
        "SensitivityAnalysis": SensitivityAnalysis(network, mask="node"),
        "GuidedBackprop": GuidedBackprop(network, mask="node"),
        "InputXGradient": InputXGradient(network, mask="node"),
        "IntegratedGradients": IntegratedGradients(network, mask="node"),
        "LRP": LRP(network, mask="node"),
        "ExcitationBP": ExcitationBP(network, mask="node"),
        "ExcitationBP, contrastive": ExcitationBP(network, mask="node", contrastive=True),
        "GNNLRP, first atoms": GNNLRP(network, mask="node"),
        "GNNLRP, bonds": GNNLRP(network, mask="edge"),
    }


def train(conv, seed, size):
    """Return a network, its test accuracy, and the test molecules with a ring that it gets right."""
    benzene = load_benzene()
    X, y = benzene.data, benzene.target
    shuffled = np.random.default_rng(0).permutation
    known, new = shuffled(benzene.train_index)[: size["train"]], shuffled(benzene.test_index)[: size["test"]]
    network = GNNClassifier(conv=conv, epochs=size["epochs"], random_state=seed).fit(X[known], y[known])
    right = new[(y[new] == 1) & (network.predict(X[new]) == 1)]
    return network, network.score(X[new], y[new]), X[right]


def compare(network, X):
    """Return a table of all methods, and what each of them found."""
    rows, found = [], {}
    for name, explainer in explainers(network).items():
        start = time.perf_counter()
        try:
            found[name] = explainer.explain(X)
        except TypeError as refusal:  # bonds may add what is negative, of which ExcitationBP can share out nothing
            print(f"left out, {name}: {refusal}")
            continue
        seconds = time.perf_counter() - start
        atoms = found[name].to_kind("node")  # a bond's score goes to its two ends
        rows.append(
            {
                "explainer": name,
                "atom ROC-AUC": roc_auc(atoms),
                "fidelity+": fidelity_plus(atoms),
                "fidelity-": fidelity_minus(atoms),
                "seconds": seconds,
            }
        )
    return pd.DataFrame(rows), found


def share_inside(E):
    """Return the share of listed walks that never leave the rings."""
    inside = []
    for walks, rings in zip(E.walks, E.instances.truth["node"], strict=True):
        inside.append(np.any(np.atleast_2d(rings), axis=0)[walks].all(axis=1).mean())
    return float(np.mean(inside))


def draw(found, count, file):
    """Draw the first molecules, a row for each method; true rings lie inside green outlines."""
    size = {"figsize": (3.3 * count, 2.5 * len(found)), "layout": "constrained"}
    figure, axes = plt.subplots(len(found), count, squeeze=False, **size)
    for (name, E), row in zip(found.items(), axes, strict=True):
        ExplanationDisplay.from_explanations(E, range(count)).plot(ax=row)
        for ax in row:
            ax.set_title(name, fontsize=9)
        if row is not axes[-1]:
            row[0].get_legend().remove()
    figure.savefig(file, dpi=90)


def draw_walks(E, count, file):
    """Draw the listed walks of the first molecules as lines from a dot, wider where they are more relevant."""
    figure, axes = plt.subplots(1, count, figsize=(4 * count, 4), squeeze=False, layout="constrained")
    for i, ax in enumerate(axes[0]):
        drawer = MolDraw2DCairo(-1, -1)
        drawer.drawOptions().scalingFactor = SCALE
        drawer.drawOptions().useBWAtomPalette()
        drawer.drawOptions().prepareMolsBeforeDrawing = False
        drawer.DrawMolecule(find_molecule(E.instances, i))
        drawer.FinishDrawing()
        ax.imshow(plt.imread(io.BytesIO(drawer.GetDrawingText())))
        places = [drawer.GetDrawCoords(atom) for atom in range(E.instances[i].graph.num_nodes)]
        places = np.array([(place.x, place.y) for place in places])
        largest = np.abs(E.walk_scores[i]).max()
        for k, (walk, score) in enumerate(zip(E.walks[i], E.walk_scores[i], strict=True)):
            turn = 2 * np.pi * k / len(E.walks[i])
            # side by side, and each step a little aside of the one before: walks may return or stay
            aside = np.linspace(0.08, 0.2, len(walk))[:, None] * SCALE * np.array([np.cos(turn), np.sin(turn)])
            style = {"color": "tab:red" if score > 0 else "tab:blue", "alpha": 0.6, "solid_capstyle": "round"}
            line = places[walk] + aside
            ax.plot(*line.T, lw=1 + 3 * abs(score) / largest, **style)
            ax.plot(*line[0], "o", ms=5, color=style["color"])
        ax.set_title(f"{len(E.walks[i])} walks, relevance up to {largest:.2g}", fontsize=9)
        ax.set_axis_off()
    figure.savefig(file, dpi=120)


def run(seed, size, output=None):
    """Return the table of one seed, and leave pictures in a folder if there is one."""
    tables = []
    for name, conv in NETWORKS.items():
        network, accuracy, X = train(conv, seed, size)
        table, found = compare(network, X)
        walks = GNNLRP(network, walks=WALKS, rank_by="positive").explain(X)
        print(
            f"seed {seed}, {name}: accuracy {accuracy:.3f}, {len(X)} molecules to explain, "
            f"{share_inside(walks):.0%} of the {WALKS} largest walks of each stay inside the rings"
        )
        if output is not None:
            file = f"{name.replace(' ', '_')}.png"
            draw(found, size["drawn"], output / f"atoms_{file}")
            draw_walks(walks, size["drawn"], output / f"walks_{file}")
            plt.close("all")
        tables.append(table.assign(network=name, seed=seed, accuracy=accuracy))
    table = pd.concat(tables)
    first = ["seed", "network", "accuracy"]
    return table[[*first, *table.columns.drop(first)]]


def over_seeds(table):
    """Return the mean of every figure over the seeds, and the smallest and the largest ROC-AUC."""
    groups = table.drop(columns=["seed", "accuracy"]).groupby(["network", "explainer"], sort=False)
    means, aucs = groups.mean(), groups["atom ROC-AUC"]
    means.insert(1, "smallest", aucs.min())
    means.insert(2, "largest", aucs.max())
    return means.reset_index()


def main(arguments=None):
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--seed", type=int, default=0, help="seed of the networks (default: 0)")
    parser.add_argument("--seeds", type=int, default=1, help="number of seeds, from --seed on (default: 1)")
    parser.add_argument("--output", type=Path, default=Path("benzene_atoms_output"), help="folder for what is left")
    parser.add_argument("--toy", action="store_true", help="a few molecules and epochs, to see that it runs")
    options = parser.parse_args(arguments)
    options.output.mkdir(parents=True, exist_ok=True)
    size = TOY if options.toy else FULL
    seeds = range(options.seed, options.seed + options.seeds)
    tables = [run(seed, size, options.output if seed == options.seed else None) for seed in seeds]
    table = pd.concat(tables, ignore_index=True)
    table.to_csv(options.output / "table.csv", index=False)
    shown = table if options.seeds == 1 else over_seeds(table)
    print(shown.to_markdown(index=False, floatfmt=".3f"))
    print(f"pictures (seed {options.seed}) and the table are in {options.output}")
    return table


if __name__ == "__main__":
    main()
