"""Benchmarks against plain baselines, measured side by side; each prints ratios. No test times anything."""
