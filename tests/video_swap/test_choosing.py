"""Who is swapped, and with whom."""

import numpy as np
import pytest

from facedancer.core.alignment import landmark_template
from facedancer.video_swap.choosing import choose_tracks, match_tracks
from facedancer.video_swap.tracking import Track


def track(start, count, x, size=40, embedding=None):
    landmarks = np.tile(np.add(landmark_template(size), [x, 50]).astype(np.float32), (count, 1, 1))
    return Track(start, landmarks, np.ones(count), None if embedding is None else np.array(embedding, float))


@pytest.fixture
def three():
    return [track(0, 50, 200, 60), track(0, 50, 20, 40), track(10, 30, 100, 90)]


def test_all_largest_and_places(three):
    assert choose_tracks(three) == {0, 1, 2}
    assert choose_tracks(three, "largest") == {2}  # of its time the largest; the other one mostly second
    assert choose_tracks(three, 1) == {1}
    assert choose_tracks(three, 2) == {2}
    assert choose_tracks(three, 3) == {0}
    assert choose_tracks(three, 4) == set() and choose_tracks([], "largest") == set()


def test_one_after_the_other():
    assert choose_tracks([track(0, 20, 10), track(20, 20, 200, 20)], "largest") == {0, 1}


PEOPLE = np.eye(3)


def test_everyone_once():
    """Both look like the first person; the best sum gives the second track the first, not the greedy choice."""
    tracks = [track(0, 20, 10, embedding=[0.72, 0.69, 0]), track(0, 20, 90, embedding=[0.7, 0, 0.1])]
    assert match_tracks(tracks, PEOPLE, 0.5) == {0: 1, 1: 0}


def test_strangers_get_nothing():
    tracks = [track(0, 20, 10, embedding=[0.3, 0.2, 0.2]), track(0, 20, 90, embedding=[-1, 0, 0])]
    assert match_tracks(tracks, PEOPLE, 0.9) == {}
    assert match_tracks([track(0, 9, 1)], PEOPLE, 0.1) == {}


def test_a_person_who_comes_back_and_one_who_is_there():
    tracks = [
        track(0, 20, 10, embedding=[1, 0, 0]),
        track(30, 20, 90, embedding=[0.9, 0.1, 0]),
        track(35, 20, 150, embedding=[0.8, 0, 0.5]),  # like the first person, who is there already
    ]
    assert match_tracks(tracks, PEOPLE, 0.6) == {0: 0, 1: 0}
    assert match_tracks(tracks, PEOPLE, 0.4) == {0: 0, 1: 0, 2: 2}
