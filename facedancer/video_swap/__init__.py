"""Swaps faces in images and videos with an exported model. Nothing here depends on a particular family."""

from facedancer.video_swap.swapper import FaceSwapper

__all__ = ["FaceSwapper"]
