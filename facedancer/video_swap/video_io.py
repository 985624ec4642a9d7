"""Video reading, for scripts: the related names of `facedancer.media` in one place."""

from facedancer.media.probe import probe_video
from facedancer.media.read import read_frames
from facedancer.media.video import Frame, Video

__all__ = ["Frame", "Video", "probe_video", "read_frames"]
