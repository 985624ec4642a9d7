"""Choosing how videos are written, for scripts: the names of `facedancer.media` that belong together."""

from facedancer.media.encoding import CODECS, Encoding, check_video_suffix, choose_encoding

__all__ = ["CODECS", "Encoding", "check_video_suffix", "choose_encoding"]
