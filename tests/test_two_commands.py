"""A second command on one place says which process works there, and does nothing."""

import json
import os

import pytest

from facedancer.cli import main
from facedancer.core.files import LOCK_NAME, only_writer

COMMANDS = {
    "demo": (["--run_dir", "place"], LOCK_NAME),
    "evaluate": (["--model", "lite", "--protocol", "pairs", "--data", "aligned", "--output", "place"], LOCK_NAME),
    "ifsr_calibrate": (["--protocol", "pairs", "--data", "aligned", "--output", "place/margins.json"], LOCK_NAME),
    "synthesize": (["--output", "place"], LOCK_NAME),
    "triplets": (["--data_dir", "aligned", "--target_dir", "place"], ".triplets.lock"),
    "batch": (["place/jobs.jsonl"], ".jobs.jsonl.lock"),
}


@pytest.mark.parametrize("verb", COMMANDS)
def test_a_second_command_is_refused_in_one_line(tmp_path, monkeypatch, capsys, verb):
    monkeypatch.chdir(tmp_path)
    words, lock_name = COMMANDS[verb]
    with only_writer("place", lock_name):
        (tmp_path / "place/jobs.jsonl").write_text(json.dumps({"vid_path": "a.mp4", "output": "b.mp4"}))
        assert main([verb, *words]) == 2
        said = capsys.readouterr().err
        assert said.startswith("error: another command is writing place") and said.count("\n") == 1
        assert f"(process {os.getpid()}); let it end, or give another name" in said
        assert sorted(path.name for path in (tmp_path / "place").iterdir()) == [lock_name, "jobs.jsonl"]
