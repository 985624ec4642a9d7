"""Resumable video writing, for scripts: the related names of `facedancer.media` in one place."""

from facedancer.media.job import SegmentedVideo, work_key

__all__ = ["SegmentedVideo", "work_key"]
