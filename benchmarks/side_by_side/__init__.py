"""What the benchmarks share: networks and graphs to explain, peers, and the comparison that gives one row."""
