"""Video output options, for scripts: the related names of `facedancer.media` in one place."""

from facedancer.media.encoding import CODECS, Encoding, check_video_suffix, choose_encoding

__all__ = ["CODECS", "Encoding", "check_video_suffix", "choose_encoding"]
