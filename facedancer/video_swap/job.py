"""Resumable work, for scripts: the related names of `facedancer.media` in one place."""

from facedancer.media.job import KeptWork, SegmentedVideo, work_key

__all__ = ["KeptWork", "SegmentedVideo", "work_key"]
