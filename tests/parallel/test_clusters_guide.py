"""The guide to clusters runs as it is written, on the cluster that it starts."""

import os
import re
import warnings
from pathlib import Path

import pytest

from skgnnx import GNNExplainer, explain_dataset
from skgnnx.testing import example

pytest.importorskip("dask.distributed")
GUIDE = (Path(__file__).parents[2] / "docs" / "clusters.md").read_text()


def test_guide(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    model, X = example("node")
    names = {"explainer": GNNExplainer(model, epochs=2), "X": X, "explain_dataset": explain_dataset}
    environ = dict(os.environ)
    try:
        for block in re.findall(r"^```python\n(.*?)^```", GUIDE, flags=re.MULTILINE | re.DOTALL):
            with warnings.catch_warnings():
                warnings.filterwarnings("ignore", "Port 8787 is already in use")
                exec(block, names)
    finally:
        for name in ("client", "cluster"):
            if name in names:
                names[name].close()
        os.environ.clear()
        os.environ.update(environ)
    assert len(names["E"]) == len(X)
    assert list(Path("finished").glob("chunk-*.npz"))
    assert len(names["search"].cv_results_["mean_test_score"]) == 2
