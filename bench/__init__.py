"""Benchmarks, each with its floor measured in the same run."""
