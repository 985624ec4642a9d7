"""Chooses which faces to swap, and with which identity."""

import numpy as np

from facedancer.video_swap.assignment import assign
from facedancer.video_swap.tracking import face_sizes, similarity

# Minimum cosine between identity embeddings of the same person. Measured with the default encoder on 4 photographs
# each of 80 people: 6.5% of same-person pairs lie below, 1.0% of the others above; at 0.4 it is 3.3% and 3.8%, at 0.6
# 13% and 0.3%.
IDENTITY_THRESHOLD = 0.5


def choose_tracks(tracks, faces="all"):
    """Returns the set of indices of the tracks to swap.

    In every frame the faces are ranked, by size or from left to right. A track is chosen if it has the requested rank
    in most of its frames, so that the choice does not change while a face is visible.

    Args:
        tracks: list of `Track`.
        faces: "all", "largest", or the position from the left, starting at 1.
    """
    if faces == "all":
        return set(range(len(tracks)))
    wanted = 0 if faces == "largest" else faces - 1
    values = [
        -face_sizes(track.landmarks) if faces == "largest" else track.landmarks[..., 0].mean(1) for track in tracks
    ]
    votes = np.zeros(len(tracks), int)
    for frame in sorted({frame for track in tracks for frame in range(track.start, track.end)}):
        here = [i for i, track in enumerate(tracks) if track.start <= frame < track.end]
        here.sort(key=lambda i: values[i][frame - tracks[i].start])
        if wanted < len(here):
            votes[here[wanted]] += 1
    return {i for i, track in enumerate(tracks) if votes[i] > len(track.landmarks) / 2}


def match_tracks(tracks, people, threshold=IDENTITY_THRESHOLD):
    """Matches tracks to people, each person at most once per frame; returns `{track's index: person's index}`.

    Whenever tracks begin, they are assigned to the people not yet in view so as to maximize total similarity.

    Args:
        tracks: list of `Track` with embeddings.
        people: (m, dim) identity embeddings.
        threshold: minimum similarity of track and person.
    """
    found = {}
    for start in sorted({track.start for track in tracks}):
        new = [i for i, track in enumerate(tracks) if track.start == start and track.embedding is not None]
        taken = {found[i] for i, track in enumerate(tracks) if i in found and track.start < start < track.end}
        free = [person for person in range(len(people)) if person not in taken]
        costs = [[1 - similarity(tracks[i].embedding, people[person]) for person in free] for i in new]
        for row, column in assign(np.array(costs).reshape(len(new), len(free)), limit=1 - threshold):
            found[new[row]] = free[column]
    return found
