"""Many jobs: one that fails stops no other, and what was done is not done again."""

import json
import os
import subprocess

import pytest

from facedancer.video_swap import batch, multi_face_single_source


@pytest.fixture
def run(tmp_path, monkeypatch, capsys):
    """Runs jobs whose processes end as the job's own `rate` says; returns status, reports and the calls made."""
    calls = []

    def process(words, **_):
        calls.append(words[3:])
        given = dict(word.split("=", 1) for word in words if "=" in word)
        status = int(given["--rate"])
        if status == 0:
            (tmp_path / given["--output"]).write_text("video")
        return subprocess.CompletedProcess(words, status, "first\nall went well\n", "odd warning\nerror: it did not\n")

    def run(*jobs):
        calls.clear()
        path = tmp_path / "jobs.jsonl"
        path.write_text("\n".join(job if isinstance(job, str) else json.dumps(job) for job in jobs))
        monkeypatch.chdir(tmp_path)
        monkeypatch.setattr(batch.subprocess, "run", process)
        status = batch.main([str(path)])
        said = capsys.readouterr()
        return status, [json.loads(line) for line in said.out.splitlines()], said.err, list(calls)

    return run


def job(name, status):
    return {"vid_path": "in.mp4", "swap_source": ["a.jpg", "b.jpg"], "output": f"{name}.mp4", "rate": status}


def test_goes_on_after_a_failure_and_resumes(run):
    status, reports, _, calls = run(job("a", 0), "", job("b", 2), job("c", 0))
    assert status == 4 and len(calls) == 3
    assert calls[0] == ["swap_video", "--vid_path=in.mp4", "--swap_source", "a.jpg", "b.jpg", "--output=a.mp4",
                        "--rate=0"]  # fmt: skip
    assert [(r["line"], r["status"]) for r in reports] == [(1, 0), (3, 2), (4, 0)]
    assert reports[0]["message"] == "all went well" and reports[1]["message"] == "error: it did not"
    status, reports, _, calls = run(job("a", 0), job("b", 0), job("c", 0))
    assert status == 0 and len(calls) == 1 and reports[0]["done"] == "before"


def test_a_result_that_is_gone_is_made_again(run, tmp_path):
    run(job("a", 0))
    (tmp_path / "a.mp4").unlink()
    assert len(run(job("a", 0))[3]) == 1


def test_a_job_done_in_part_says_what_it_did(run):
    _, reports, _, _ = run(job("a", 4))
    assert (reports[0]["status"], reports[0]["message"]) == (4, "all went well")


@pytest.mark.parametrize("statuses, overall", [((0, 0), 0), ((2, 2), 2), ((3, 2), 3), ((0, 3), 4), ((4, 2), 4)])
def test_exit_status(run, statuses, overall):
    assert run(*[job(f"job{i}", status) for i, status in enumerate(statuses)])[0] == overall


@pytest.mark.parametrize(
    "line",
    [
        "no json", "[1]", '{"vid_path": "a"}', '{"vid_path": "a", "img_path": "b", "output": "c"}',
        '{"vid_path": "a", "output": "b", "swap_source": null}', '{"vid_path": "a", "output": "b", "map": ["c", null]}',
        '{"vid_path": "a", "output": "b", "faces": {"which": 1}}', "[" * 100_000, '{"a": ' * 100_000,
    ],
)  # fmt: skip
def test_bad_lines(run, line):
    status, _, err, calls = run(job("a", 0), line)
    assert status == 2 and "line 2" in err and err.count("\n") == 1 and not calls


@pytest.mark.parametrize("text", ["a\0b", "\ud800"])
def test_texts_that_no_process_can_be_given(run, text):
    status, _, err, calls = run(job("a", 0), {**job("b", 0), "swap_source": text})
    assert status == 2 and "line 2" in err and err.count("\n") == 1 and not calls


def test_two_jobs_do_not_write_the_same_file(run):
    status, _, err, calls = run(job("a", 0), job("b", 0), {**job("./x/../a", 0), "faces": "largest"})
    assert status == 2 and "line 3: its output is that of line 1" in err and err.count("\n") == 1 and not calls


def test_a_picture_is_swapped_by_its_own_verb(run):
    _, _, _, calls = run({"img_path": "a.jpg", "output": "b.png", "rate": 0})
    assert calls[0][0] == "swap_image"


def test_values_that_begin_with_a_dash_are_values(run):
    """The words that are made are understood by the command itself."""
    given = {**job("-out", 0), "vid_path": "-in.mp4", "swap_source": ["-a.jpg", "b.jpg"], "device_id": -1}
    _, _, _, calls = run(given)
    words = [word for word in calls[0][1:] if not word.startswith("--rate")]
    args = multi_face_single_source.build_parser().parse_args(words)
    assert (args.vid_path, args.output, args.device_id) == ("-in.mp4", "-out.mp4", -1)
    assert [os.path.normpath(path) for path in args.swap_source] == ["-a.jpg", "b.jpg"]
