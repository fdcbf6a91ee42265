"""Whole data sets: chunks over processes, results on disk that survive a kill, folds of cross-validation."""

from skgnnx.parallel.chunks import explain_chunks
from skgnnx.parallel.cross_validation import cross_val_explain
from skgnnx.parallel.dataset import explain_dataset
from skgnnx.parallel.isolating import explain_survivors

__all__ = ["cross_val_explain", "explain_chunks", "explain_dataset", "explain_survivors"]
