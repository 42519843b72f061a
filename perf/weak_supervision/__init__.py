"""The modules of perf/weak_supervision.py."""
