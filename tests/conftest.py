"""One thread, and the same random choices in every run."""

import os

os.environ.setdefault("OMP_NUM_THREADS", "1")  # before numpy and torch start their pools; worker processes inherit it
os.environ.setdefault("MPLBACKEND", "Agg")

import hypothesis
import torch

torch.set_num_threads(1)

hypothesis.settings.register_profile("ci", max_examples=20, derandomize=True, deadline=None, database=None)
hypothesis.settings.register_profile("full", max_examples=300, deadline=None, print_blob=True)
hypothesis.settings.load_profile(os.environ.get("HYPOTHESIS_PROFILE", "ci"))
