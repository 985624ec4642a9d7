"""Tracks: steady where a face is still, true where it moves, apart where scenes are."""

from dataclasses import replace
from fractions import Fraction

import cv2
import numpy as np
import pytest
from small_videos import moving_frames

from facedancer.core.alignment import landmark_template
from facedancer.retinaface import DetectedFace
from facedancer.video_swap.tracking import SeenFrame, Watcher, build_tracks, face_sizes, smooth_landmarks

FACE = landmark_template(100)  # 35 pixels between the eyes


def at(rate, count=300):
    """Times of frames at a constant rate."""
    return [Fraction(index, rate) for index in range(count)]


def seen(*frames, cuts=()):
    """Frames of lists of centers, None where no face is looked for."""
    found = []
    for index, centers in enumerate(frames):
        points = np.array([FACE - 50 + center for center in centers or ()], np.float32).reshape(-1, 5, 2)
        found.append(SeenFrame(index == 0 or index in cuts, centers is not None, points))
    return found


def jitter(landmarks):
    """Root mean square of what is not a straight line from frame to frame, in pixels."""
    return np.sqrt((np.diff(landmarks, 2, axis=0) ** 2).mean())


class TestFilter:
    def test_a_still_face_trembles_at_most_three_tenths(self):
        for seed in range(4):
            noise = np.random.default_rng(seed).normal(0, 0.5, (150, 5, 2))
            steady = smooth_landmarks(FACE + noise, at(25, 150))
            assert jitter(steady) < 0.3 * jitter(noise)
            assert steady.std(0).mean() < 0.4 * noise.std(0).mean()
            assert np.abs(steady.mean(0) - FACE).max() < 0.3

    @pytest.mark.parametrize("rate", [25, 60])
    def test_a_fast_turn_does_not_lag_a_frame(self, rate):
        """From one side to the other, two distances between the eyes, in a fifth of a second."""
        time = np.arange(-rate, rate) / rate
        path = 70 * np.clip(time / 0.2 + 0.5, 0, 1)[:, None, None] * [1.0, 0.0]
        true = FACE + path
        steady = smooth_landmarks(true + np.random.default_rng(0).normal(0, 0.3, true.shape), at(rate, len(true)))
        speed = 70 / 0.2 / rate  # pixels a frame
        late = (true - steady)[..., 0].mean(1) / speed
        assert abs(late[np.abs(time) < 0.1].mean()) < 0.1 and np.abs(late).max() < 1

    def test_is_the_same_at_every_size_and_both_ways_in_time(self):
        landmarks = FACE + np.random.default_rng(0).normal(0, 1, (40, 5, 2))
        np.testing.assert_allclose(
            smooth_landmarks(4 * landmarks, at(25, len(landmarks))),
            4 * smooth_landmarks(landmarks, at(25, len(landmarks))),
            rtol=1e-4,
        )
        np.testing.assert_allclose(
            smooth_landmarks(landmarks[::-1], at(25, len(landmarks))),
            smooth_landmarks(landmarks, at(25, len(landmarks)))[::-1],
            rtol=1e-4,
        )


class TestTracks:
    def test_two_faces_that_pass_each_other(self):
        frames = [[(60 + 6 * i, 80), (360 - 6 * i, 200)] for i in range(50)]
        tracks = build_tracks(seen(*[f if i % 3 else f[::-1] for i, f in enumerate(frames)]), at(25))
        assert [(track.start, track.end) for track in tracks] == [(0, 50), (0, 50)]
        for track in tracks:
            steps = np.diff(track.landmarks.mean(1)[:, 0])
            assert (np.abs(np.abs(steps) - 6) < 2.5).all() and len(set(np.sign(steps))) == 1

    def test_short_gaps_are_filled_and_long_ones_fade(self):
        frames = [[(100 + i, 90)] for i in range(60)]
        for i in (10, 11, 12):
            frames[i] = []
        frames[30:45] = [[]] * 15
        first, second = build_tracks(seen(*frames), at(25))
        assert (first.start, first.end, second.start, second.end) == (0, 30, 45, 60)
        np.testing.assert_allclose(first.landmarks[11].mean(0)[0], FACE.mean(0)[0] - 50 + 111, atol=1)
        assert first.weights[0] == 1 and second.weights[-1] == 1  # the video begins and ends with it
        assert 0 < first.weights[-1] < first.weights[-2] < 1 and 0 < second.weights[0] < second.weights[1] < 1
        assert (first.weights[:-5] == 1).all()

    def test_a_cut_is_not_smoothed_over_and_nothing_fades_there(self):
        frames = [[(100, 90)]] * 20 + [[(112, 96)]] * 20
        first, second = build_tracks(seen(*frames, cuts=(20,)), at(25))
        assert first.end == second.start == 20
        assert np.ptp(first.landmarks, axis=0).max() < 1e-3 and np.ptp(second.landmarks, axis=0).max() < 1e-3
        assert (first.weights == 1).all() and (second.weights == 1).all()

    def test_profiles_fade(self):
        turned = FACE.copy()
        turned[:, 0] = 50 + (turned[:, 0] - 50) * 0.12
        frames = [SeenFrame(i == 0, True, (FACE if i < 20 else turned)[None].astype(np.float32)) for i in range(40)]
        (track,) = build_tracks(frames, at(25))
        assert track.weights[5] == 1 and track.weights[-1] == 0
        assert np.abs(np.diff(track.weights)).max() < 0.7

    def test_identity_tells_apart_those_who_cross(self):
        """Both are in one place for a moment, and turn back: only identity knows."""
        draw = np.random.default_rng(0)
        people = np.eye(8)[:2]
        frames = []
        for i in range(41):
            x = abs(i - 20) * 4.0
            order = draw.permutation(2)
            points = np.array([FACE - 50 + ((160 - x, 100), (160 + x, 104))[p] for p in order], np.float32)
            embeddings = (people[order] + draw.normal(0, 0.1, (2, 8))).astype(np.float32)
            frames.append(SeenFrame(i == 0, True, points, embeddings))
        tracks = build_tracks(frames, at(25))
        assert len(tracks) == 2
        for track in tracks:
            person = int(np.argmax(track.embedding))
            side = np.sign(track.landmarks.mean(1)[:, 0] - (FACE[:, 0].mean() - 50 + 160))
            assert (side[[0, 5, 10, 30, 35, 40]] == (-1 if person == 0 else 1)).all()

    def test_size_is_that_of_turned_faces_too(self):
        angle = 0.7
        turn = np.array([[np.cos(angle), -np.sin(angle)], [np.sin(angle), np.cos(angle)]])
        np.testing.assert_allclose(face_sizes(np.stack([FACE, FACE @ turn.T])), face_sizes(FACE[None]).repeat(2))

    def test_survives_the_journal(self):
        frame = SeenFrame(True, False, np.float32(np.random.default_rng(0).normal(100, 9, (2, 5, 2))), None)
        again = SeenFrame.from_json(frame.to_json())
        np.testing.assert_allclose(again.landmarks, frame.landmarks, atol=0.006)
        assert (again.is_cut, again.is_detected, again.embeddings) == (True, False, None)
        empty = SeenFrame.from_json(SeenFrame(False, True, np.zeros((0, 5, 2)), None).to_json())
        assert empty.landmarks.shape == (0, 5, 2)


def patch_at(x, y, scene=0):
    """A frame of noise with a patch of other noise, whose landmarks are known."""
    ground = cv2.GaussianBlur(np.random.default_rng(scene).integers(0, 256, (200, 320, 3)).astype(np.uint8), (9, 9), 3)
    patch = np.random.default_rng(99).integers(0, 256, (120, 120, 3)).astype(np.uint8)
    patch = cv2.GaussianBlur(patch, (7, 7), 2)
    matrix = np.array([[1, 0, x - 60], [0, 1, y - 60]], np.float64)
    return cv2.warpAffine(patch, matrix, (320, 200), dst=ground, borderMode=cv2.BORDER_TRANSPARENT)


class Told:
    """A detector that is told the centers of faces, and counts what it is asked."""

    def __init__(self, centers):
        self.centers, self.asked = iter(centers), 0

    def detect(self, images):
        self.asked += len(images)
        return [[DetectedFace(np.zeros(4), (FACE - 50 + next(self.centers)).astype(np.float32), 1.0)] for _ in images]


class TestWatcher:
    @pytest.mark.parametrize("every", [1, 2, 4])
    def test_faces_are_followed_between_detections(self, every, monkeypatch):
        """On a curve, where a straight line between detections would be pixels off."""
        time = np.arange(33)
        centers = np.stack([160 + 50 * np.sin(time / 4), 100 + 20 * np.cos(time / 4)], -1)
        frames = [patch_at(x, y) for x, y in centers]
        detector = Told(centers[::every])
        watcher = Watcher(detector, every)
        found = [frame for start in range(0, 33, 8) for frame in watcher.detect(frames[start : start + 8], start)]
        assert detector.asked == len(centers[::every])
        monkeypatch.setattr("facedancer.video_swap.tracking.smooth_landmarks", lambda landmarks, times: landmarks)
        (track,) = build_tracks(found, at(25))
        error = np.linalg.norm(track.landmarks.mean(1) - (FACE - 50).mean(0) - centers, axis=-1)
        assert len(track.landmarks) == 33 and error.max() < 0.7

    def test_cuts(self):
        frames = [patch_at(100 + i, 100, scene=0) for i in range(5)]
        frames += [255 - patch_at(100, 100) // 2 for _ in range(5)] + list(moving_frames(3, 320, 200))
        found = Watcher(Told([(0, 0)] * 13)).detect(frames, 0)
        assert [index for index, frame in enumerate(found) if frame.is_cut] == [0, 5, 10]

    def test_faces_are_looked_for_at_a_cut(self):
        """Those of a new scene are there from its first frame, not from the next k-th on."""
        frames = [patch_at(100 + i, 100, scene=0) for i in range(5)] + [255 - patch_at(100, 100) // 2] * 5
        found = Watcher(Told([(100, 100)] * 10), every=4).detect(frames, 0)
        assert [index for index, frame in enumerate(found) if frame.is_detected] == [0, 4, 5, 8]
        assert [(track.start, track.end) for track in build_tracks(found, at(25))] == [(0, 5), (5, 10)]

    @pytest.mark.parametrize("every", [1, 2])
    def test_faces_are_settled_by_where_they_were_before_in_the_scene(self, every):
        """In pixels of the pictures that are looked at."""
        frames = [patch_at(100 + 2 * i, 100) for i in range(4)] + [255 - patch_at(100, 100) // 2] * 2
        given = []

        def settle(image, faces, before, detect):
            given.append(before)
            return [replace(face, landmarks=face.landmarks + 7) for face in faces]

        found = Watcher(Told([(100, 100)] * 6), every, scale=(3, 3), settle=settle).detect(frames, 0)
        assert np.allclose(found[0].landmarks, 3 * (FACE - 50 + 100 + 7), atol=0.01)
        detections = {1: [0, 1, 2, 3, 4, 5], 2: [0, 2, 4]}[every]
        assert [len(before) for before in given] == [int(frame not in (0, 4)) for frame in detections]
        assert np.abs(given[1] - (FACE - 50 + 100 + 7)).max() < (0.01 if every == 1 else 8)

    def test_where_a_scene_begins_pictures_without_a_face_are_looked_at_turned(self):
        frames, asked = [patch_at(100, 100)] * 2 + [255 - patch_at(100, 100) // 2] * 2, []

        def settle(image, faces, before, detect):
            asked.append(detect is not None)
            return faces

        Watcher(Told([(100, 100)] * 4), settle=settle).detect(frames, 0)
        assert asked == [True, False, True, False]

    def test_motion_and_noise_are_no_cuts(self):
        scene = cv2.resize(patch_at(160, 100), (640, 400))
        draw = np.random.default_rng(0)
        frames = [
            np.clip(scene[:, 12 * i : 12 * i + 320].astype(int) + draw.normal(0, 20, (400, 320, 3)), 0, 255).astype(
                np.uint8
            )
            for i in range(20)
        ]
        found = Watcher(Told([(0, 0)] * 20)).detect(frames, 0)
        assert not any(frame.is_cut for frame in found[1:])


class TestTimes:
    """Time stamps as browsers write them: 28 to 38 ms apart, or with a long hold."""

    UNEVEN = np.cumsum(np.random.default_rng(0).integers(28, 39, 60)).tolist()

    def test_gaps_and_fades_last_as_long_whatever_the_rate_is_said_to_be(self):
        times = [Fraction(time, 1000) for time in self.UNEVEN]
        center = (100, 100)
        frames = seen(*[[center] if i < 20 or i >= 40 else [] for i in range(60)])
        first, second = build_tracks(frames, times)
        assert (first.start, first.end, second.start, second.end) == (0, 20, 40, 60)
        whole = next(i for i, weight in enumerate(second.weights) if weight == 1)
        assert 0.1 < times[40 + whole] - times[39] < 0.25
        assert (np.diff(second.weights) >= 0).all()
        assert 0.1 < times[20] - times[next(i for i, weight in enumerate(first.weights) if weight < 1) - 1] < 0.25

    def test_a_gap_of_few_frames_that_lasts_long_is_not_filled(self):
        times = [Fraction(i, 25) + (2 if i > 12 else 0) for i in range(20)]
        frames = seen(*[[] if 10 <= i <= 13 else [(100, 100)] for i in range(20)])
        assert len(build_tracks(frames, times)) == 2
        assert len(build_tracks(frames, at(25, 20))) == 1

    def test_a_filled_gap_goes_as_its_times_go(self):
        times = [Fraction(time, 100) for time in (0, 4, 16, 20, 24)]
        frames = seen([(100, 100)], [], [], [(110, 100)], [(110, 100)])
        (track,) = build_tracks(frames, times)
        middle = track.landmarks[:, :, 0].mean(1)
        assert middle[2] - middle[1] > 2 * (middle[1] - middle[0])
