"""Reading videos, for scripts: the names of `facedancer.media` that belong together."""

from facedancer.media.probe import probe_video
from facedancer.media.read import read_frames
from facedancer.media.video import Frame, Video

__all__ = ["Frame", "Video", "probe_video", "read_frames"]
