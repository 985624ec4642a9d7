"""Resumable work: finished parts and a journal, in a folder beside the output.

After a kill at any moment, the same command finds the folder `.<name of the output>.work` and goes on after the parts
that are complete there. The parts of a video are segments, each encoded separately, so the result has the same frames
as an uninterrupted run. If the command or a file that it reads has changed, the work starts over.
"""

import contextlib
import errno
import hashlib
import json
import os
from pathlib import Path

from facedancer.core.files import LOCK_NAME, Journal, only_writer
from facedancer.media.assembly import assemble
from facedancer.media.containers import errors_of
from facedancer.media.segments import SegmentWriter
from facedancer.media.tracks import plan_tracks

SEGMENT_FRAMES = 64
_LONGEST_NAME = 255  # bytes
_FORMAT = 3  # of the journals; work in another format starts over


class KeptWork:
    """The folder that keeps the finished parts of an output, and their journal; only one command at a time can use it.

    Args:
        path: the file that will be written.
        key: text that identifies the work; from `work_key`. Parts made under another key are removed.

    Attributes:
        folder: path of the folder.
        entries: list of the JSON values that earlier runs passed to `append`.
    """

    def __init__(self, path, key):
        self.folder = Path(path).parent / _folder_name(Path(path).name)
        with contextlib.ExitStack() as stack:
            stack.callback(self._remove_folder)
            stack.enter_context(only_writer(self.folder, what=path))
            journal = self.folder / "journal.jsonl"
            self._journal = Journal(journal)
            if self._journal.entries[:1] != [{"key": key}]:
                self._journal.close()
                self._remove_files()
                self._journal = Journal(journal)
                try:
                    self._journal.append({"key": key})
                except OSError:
                    journal.unlink()
                    raise
            self.entries = self._journal.entries[1:]
            self._lock = stack.pop_all()

    def append(self, entry):
        """Adds an entry for a finished part, whose files must already be in the folder."""
        self._journal.append(entry)

    def discard(self):
        """Removes all work done so far."""
        self._journal.close()
        # The journal goes first: after a kill during the removal, the command must not look for removed parts.
        self._journal.path.unlink()
        self._remove_files()
        self._lock.close()

    def close(self):
        """Stops; finished parts stay."""
        self._journal.close()
        self._lock.close()

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.close()

    def _remove_folder(self):
        """Removes the folder if it is empty: nothing is kept, and no other command has begun in it since."""
        if not self.folder.is_dir():  # it could not be made
            return
        try:
            self.folder.rmdir()
        except OSError as error:
            if error.errno not in (errno.ENOTEMPTY, errno.ENOENT):
                raise

    def _remove_files(self):
        for path in set(self.folder.iterdir()) - {self.folder / LOCK_NAME}:
            path.unlink()


class SegmentedVideo:
    """A video that is written frame by frame, and exists, complete, after `finish`.

    Args:
        path: the file to write.
        video: `Video` that the frames come from.
        encoding: `Encoding` from `choose_encoding`.
        sample_rate: as for `read_frames`.
        key: text from `work_key` that distinguishes this work from other work on the same output.

    Attributes:
        frames_done: number of frames in complete segments at the start.
        notes: the `note` that `write` was given for each of those frames, in order; JSON values.
        tracks: `TrackPlan` of the video's other tracks.
        folder: holds all files until the work is finished.
        seen_path: journal in that folder for a first pass over the video.

    Raises:
        UserError: if another command is writing the same output.
    """

    def __init__(self, path, video, encoding, sample_rate=1, key=""):
        self.path, self.video, self.encoding, self.sample_rate = Path(path), video, encoding, sample_rate
        self.tracks = plan_tracks(path, video)
        self._work = KeptWork(path, key)
        self._is_open = True
        self.folder = self._work.folder
        self.seen_path = self.folder / "seen.jsonl"
        entries = self._work.entries
        self._segments = [(self.folder / entry["file"], entry["pts"], entry["end"]) for entry in entries]
        self.notes = [note for entry in entries for note in entry["notes"]]
        self.frames_done = len(self.notes)
        self._pending = []
        self._writer = None

    def write(self, frame, image, regions=None, part=None, note=None):
        """Writes one frame; arguments as for `SegmentWriter.write`, and a note (a JSON value) for the journal."""
        with errors_of(self.path):
            if self._writer is None:
                path = self.folder / _name(len(self._segments))
                self._writer = SegmentWriter(path, self.encoding, self.video.rate / self.sample_rate)
            self._writer.write(frame, image, regions, part)
        self._pending.append((frame.pts, frame.pts + frame.duration, note))
        if len(self._pending) == SEGMENT_FRAMES:
            self._close_segment()

    def finish(self):
        """Closes the last segment, writes the output and removes the folder."""
        if self._pending:
            self._close_segment()
        assemble(self.path, self.video, self.encoding, self._segments, self.sample_rate, self.tracks)
        self.discard()

    def discard(self):
        """Removes all work done so far."""
        self._abandon_segment()
        self._work.discard()
        self._is_open = False

    def close(self):
        """Stops: the unfinished segment is lost; complete ones stay, and so does the first pass's journal."""
        self._abandon_segment()
        if self._segments or self._has_been_looked_through():
            self._work.close()
        else:
            self._work.discard()
        self._is_open = False

    def __enter__(self):
        return self

    def __exit__(self, *_):
        if self._is_open:
            self.close()

    def _has_been_looked_through(self):
        return self.seen_path.exists() and self.seen_path.stat().st_size > 0

    def _abandon_segment(self):
        if self._writer is not None:
            self._writer.abandon()
            self._writer = None

    def _close_segment(self):
        with errors_of(self.path):
            self._writer.finish()
        self._writer = None
        pts, ends, notes = (list(values) for values in zip(*self._pending, strict=True))
        name = _name(len(self._segments))
        # The segment has been moved to its name by now: a kill between the two lines costs it, nothing else.
        self._work.append({"file": name, "pts": pts, "end": ends[-1], "notes": notes})
        self._segments.append((self.folder / name, pts, ends[-1]))
        self._pending = []


def _folder_name(name):
    """Returns the name of the folder for an output, shortened where a file system would refuse it."""
    whole = f".{name}.work"
    if len(os.fsencode(whole)) <= _LONGEST_NAME:
        return whole
    return f".{hashlib.sha256(os.fsencode(name)).hexdigest()}.work"


def _name(index):
    return f"{index:06d}.mkv"


def work_key(settings, *paths):
    """Returns a text that changes with `settings` (a dict of JSON values) and with the files at `paths`."""
    files = []
    for path in paths:
        status = os.stat(path)
        files.append([os.fspath(Path(path).resolve()), status.st_size, status.st_mtime_ns])
    text = json.dumps([_FORMAT, settings, files], sort_keys=True, default=str)
    return hashlib.sha256(text.encode(errors="backslashreplace")).hexdigest()
