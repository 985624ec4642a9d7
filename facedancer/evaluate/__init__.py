"""Measures swaps and shows them: against the exact truth of rendered people, and on one page."""
