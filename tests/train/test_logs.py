"""TensorBoard reads what a run logs; a disk that is full is one error, with the file."""

import subprocess
import sys

import numpy as np
from tensorboard.backend.event_processing.event_file_loader import EventFileLoader

from facedancer.train.logs import TensorBoardLog


def test_tensorboard_reads_what_is_logged(tmp_path):
    log = TensorBoardLog(tmp_path / "logs")
    log.scalars({"losses/identity": 0.5, "learning_rate": 1e-4}, 7)
    log.image("swaps/train", np.zeros((4, 6, 3), np.uint8), 7)
    log.text("configuration", "text", 0)
    log.settings({"lr": 1e-4, "preset": "lite", "ema": True})
    log.close()
    TensorBoardLog(tmp_path / "logs").close()  # of a run that goes on: a file of its own
    first, second = sorted((tmp_path / "logs").glob("events.out.tfevents.*"))
    version, *events = EventFileLoader(str(first)).Load()
    assert version.file_version == "brain.Event:2" and [event.step for event in events] == [7, 7, 0, 0]
    values = {value.tag: value for event in events for value in event.summary.value}
    assert values["losses/identity"].tensor.float_val[0] == 0.5
    assert {"learning_rate", "swaps/train", "configuration", "_hparams_/session_start_info"} <= values.keys()
    assert len(list(EventFileLoader(str(second)).Load())) == 1


def test_a_full_disk_names_the_file(tmp_path):
    code = f"""
import resource
from facedancer.train.logs import TensorBoardLog
log = TensorBoardLog({str(tmp_path)!r})
resource.setrlimit(resource.RLIMIT_FSIZE, (1000, 1000))
for work in (lambda: log.text("configuration", "x" * 2000, 0), log.close):
    try:
        work()
    except OSError as error:
        print(error.strerror, error.filename)
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    (path,) = tmp_path.iterdir()
    assert set(done.stdout.splitlines()) == {f"File too large {path}"} and done.stderr == ""
