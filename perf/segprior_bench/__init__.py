"""The benchmark of perf/bench.py, in parts: problems, timing, entries, report."""
