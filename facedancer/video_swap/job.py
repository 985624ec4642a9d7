"""Writing a video that goes on after a kill, for scripts: the names of `facedancer.media` that belong together."""

from facedancer.media.job import SegmentedVideo, work_key

__all__ = ["SegmentedVideo", "work_key"]
