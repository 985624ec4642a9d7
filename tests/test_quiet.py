"""What a person reads of a command is the command's: nothing of TensorFlow's, CUDA's or any other library's."""

import os
import subprocess
import sys

from drawn_faces import write_dataset

SCRIPT = """
from facedancer.cli import main

if __name__ == "__main__":  # worker processes import this, too
    picture = "people/person_00/00.png"
    for words in (
        "crop_align --data_dir people --target_dir aligned --im_size 192 --shrink_factor 0.6667 --min_size 64",
        "triplets --data_dir aligned --target_dir shards --count 4 --validation_count 2 --validation_fraction 0.5"
        " --workers 1",
        f"swap_image --img_path {picture} --swap_source {picture} --output swapped.png --mask occlusion",
    ):
        assert main(words.split()) == 0, words
"""


def test_commands_print_nothing_of_libraries(tmp_path, repository):
    """One process, and the workers that it starts, from the first import of TensorFlow on."""
    write_dataset(tmp_path / "people", identities=4, per_identity=1, size=160)
    (tmp_path / "script.py").write_text(SCRIPT)
    environment = {name: value for name, value in os.environ.items() if not name.startswith("TF_CPP")}
    done = subprocess.run(
        [sys.executable, "script.py"], cwd=tmp_path, capture_output=True, text=True,
        env={**environment, "PYTHONPATH": str(repository)},
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    assert done.stderr == ""
    allowed = ("device: ", "aligned 4 of 4 pictures", "4 of 4 portraits", "shards: ", "swapped.png: ")
    assert [line for line in done.stdout.splitlines() if not line.startswith(allowed)] == []
