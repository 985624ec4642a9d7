"""Swaps faces in pictures and videos with an exported model. No family of models is named here."""

from facedancer.video_swap.swapper import FaceSwapper

__all__ = ["FaceSwapper"]
