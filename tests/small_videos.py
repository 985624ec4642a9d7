"""Small videos made on the spot, and stand-ins for the networks."""

from fractions import Fraction

import av
import keras
import numpy as np
from keras import layers, ops

from facedancer.core.alignment import invert_affine, landmark_template, transform_points
from facedancer.core.processes import kept_scheduling
from facedancer.retinaface import DetectedFace

SIZE = 32  # of the stand-in's aligned faces


class KnownFaces:
    """A detector that knows where the faces are: the first pixel of a picture says how many there are."""

    def __init__(self, *frame_to_aligned):
        self.matrices = frame_to_aligned

    def detect(self, images):
        return [[known_face(matrix) for matrix in self.matrices[: image[0, 0, 0]]] for image in images]


class MeanColor:
    """An encoder whose identity is a face's mean color."""

    dim = 3

    def __call__(self, faces):
        return (faces.mean((1, 2)) / 127.5 - 1).astype(np.float32)


class BreaksAt:
    """A swap network that gives what is no number for some of the faces that it gets, counted from 0."""

    def __init__(self, model, places):
        self.model, self.places, self.count = model, places, 0

    def predict_on_batch(self, inputs):
        swapped = np.array(self.model.predict_on_batch(inputs))
        for index in range(len(swapped)):
            if self.count + index in self.places:
                swapped[index, 3, 4] = [0, np.inf, 0]
        self.count += len(swapped)
        return swapped


def known_face(frame_to_aligned):
    landmarks = transform_points(invert_affine(frame_to_aligned), landmark_template(SIZE))
    box = np.concatenate([landmarks.min(0), landmarks.max(0)]).astype(np.float32)
    return DetectedFace(box, landmarks.astype(np.float32), 0.9)


def similarity(scale, angle, center):
    """`frame_to_aligned` of a face that is `scale` times as large in the frame, turned, about a center there."""
    turn = np.array([[np.cos(angle), -np.sin(angle)], [np.sin(angle), np.cos(angle)]])
    aligned_to_frame = np.column_stack([scale * turn, np.array(center) - scale * turn @ [SIZE / 2, SIZE / 2]])
    return invert_affine(aligned_to_frame)


def paint_model(size=SIZE):
    """A swapper that fills the face with the color that its embedding is."""
    target = keras.Input((size, size, 3), name="target")
    source_embedding = keras.Input((3,), name="source_embedding")
    color = layers.Reshape((1, 1, 3))(source_embedding)
    model = keras.Model([target, source_embedding], ops.zeros_like(target) + color)
    model.jit_compile = False  # XLA would compile anew for every size of batch
    return model


def moving_frames(count, width=64, height=48):
    """Smooth pictures that differ, (count, height, width, 3) uint8."""
    t, y, x = np.meshgrid(np.arange(count), np.arange(height), np.arange(width), indexing="ij")
    waves = [np.sin(x / 9 + t / 5), np.sin(y / 7 - t / 4), np.sin((x + y) / 11 + t / 3)]
    return (128 + 90 * np.stack(waves, -1)).astype(np.uint8)


@kept_scheduling()
def write_clip(path, frames, *, rate=25, ticks=None, time_base=None, sound=1, codec="libx264", pix_fmt="yuv420p",
               options=None, tags=None, matrix=None, colors=(5, 1),
               sound_codec="aac", container_options=None):  # fmt: skip
    """Writes a video.

    Args:
        frames: (n, H, W, 3) uint8.
        ticks: time stamps in `time_base`; by default one frame after the other at `rate`.
        sound: number of sound tracks, as long as the pictures.
        tags: attributes of the encoder, such as `colorspace`.
        matrix: display matrix, nine integers.
        colors: swscale's matrix and the range of the YUV.
    """
    rate = Fraction(rate)
    time_base = time_base or 1 / rate
    ticks = list(range(len(frames))) if ticks is None else ticks
    with av.open(path, "w", container_options=container_options or {}) as container:
        stream = container.add_stream(codec, rate=rate, options=options or {"crf": "5", "preset": "ultrafast"})
        stream.height, stream.width = frames.shape[1:3]
        stream.pix_fmt = pix_fmt
        stream.codec_context.time_base = time_base
        for name, value in (tags or {}).items():
            setattr(stream.codec_context, name, value)
        if matrix:
            stream.set_display_matrix(matrix)
        tracks = [container.add_stream(sound_codec, rate=22050) for _ in range(sound)]
        for image, pts in zip(frames, ticks, strict=True):
            picture = av.VideoFrame.from_ndarray(image, "rgb24")
            picture = picture.reformat(
                format=pix_fmt, src_color_range=2, dst_colorspace=colors[0], dst_color_range=colors[1],
                interpolation="ACCURATE_RND",
            )  # fmt: skip
            picture.pts, picture.time_base = pts, time_base
            container.mux(stream.encode(picture))
        container.mux(stream.encode(None))
        seconds = float((ticks[-1] + (ticks[-1] - ticks[0]) / max(len(ticks) - 1, 1)) * time_base)
        for index, track in enumerate(tracks):
            wave = 0.3 * np.sin(np.arange(int(22050 * seconds)) * (0.05 + 0.02 * index), dtype=np.float32)
            tone = av.AudioFrame.from_ndarray(wave[None], "fltp", layout="mono")
            tone.sample_rate, tone.pts = 22050, 0
            container.mux(track.encode(tone))
            container.mux(track.encode(None))


def lose_packet(path, damaged, index):
    """Copies a video's pictures with one packet that no decoder can read."""
    with av.open(path) as old, av.open(damaged, "w") as new:
        stream = new.add_stream_from_template(old.streams.video[0])
        for number, packet in enumerate(old.demux(video=0)):
            if packet.size:
                if number == index:
                    broken = av.Packet(b"no picture at all")
                    broken.pts, broken.dts, broken.time_base = packet.pts, packet.dts, packet.time_base
                    packet = broken
                packet.stream = stream
                new.mux(packet)


def read_clip(path):
    """Returns the (n, H, W, 3) uint8 pictures of a video, and their times in seconds."""
    with av.open(path) as container:
        decoded = [
            (frame.to_ndarray(format="rgb24"), frame.pts * frame.time_base) for frame in container.decode(video=0)
        ]
    return np.stack([image for image, _ in decoded]), [time for _, time in decoded]


def read_planes(path):
    """Returns the decoded 4:2:0 planes of a video, (n, 1.5 H, W) int."""
    with av.open(path) as container:
        return np.stack([frame.to_ndarray() for frame in container.decode(video=0)]).astype(int)


def read_sound(path):
    """Returns the packets of every sound track: lists of `(pts, bytes)`."""
    with av.open(path) as container:
        tracks = [[] for _ in container.streams.audio]
        order = {stream.index: tracks[i] for i, stream in enumerate(container.streams.audio)}
        for packet in container.demux(audio=tuple(range(len(tracks)))) if tracks else ():
            if packet.size:
                order[packet.stream_index].append((packet.pts, bytes(packet)))
    return tracks
