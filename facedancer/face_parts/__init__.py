"""Frozen networks that find which pixels of an aligned face are face, and where its parts are."""
