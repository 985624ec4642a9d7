"""Frozen networks that segment aligned faces and locate their parts."""
