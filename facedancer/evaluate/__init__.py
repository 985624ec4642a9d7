"""Evaluates swap models against exact truth and baselines, and writes reports."""
