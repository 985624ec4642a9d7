"""Reads and writes videos, animations and sequences of pictures. It knows nothing of faces."""
