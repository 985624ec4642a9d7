"""Reads and writes videos, animations and image sequences. It knows nothing about faces."""
