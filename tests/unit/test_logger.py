"""What a person reads while the workflow runs, from the records that Snakemake logs."""

import logging
import logging.handlers
import queue
import sys

import pytest
import snakemake_logger_plugin_pqag as plugin
from snakemake_interface_logger_plugins.common import LogEvent
from snakemake_interface_logger_plugins.registry import LoggerPluginRegistry


@pytest.fixture
def handler():
    return plugin.LogHandler(None, None)


@pytest.fixture
def tell(handler, capsys):
    """Send a record as Snakemake does, through the queue of its logger manager; gives what is printed to stderr."""
    through = logging.handlers.QueueHandler(queue.Queue())

    def send(message="", event=None, level=logging.INFO, **attributes):
        extra = attributes if event is None else {"event": event, **attributes}
        handler.emit(
            through.prepare(logging.getLogger("snakemake").makeRecord("snakemake", level, "file.py", 1, message, (), None, extra=extra))
        )
        printed = capsys.readouterr()
        assert printed.out == "", "stdout is left to results"
        return printed.err

    return send


def run_info(tell, **jobs):
    """As in ``Workflow.execute``: a table, and its rows by rule with their sum under "total"."""
    stats = jobs | {"total": sum(jobs.values())}
    return tell("Job stats:\njob    count\n", LogEvent.RUN_INFO, stats=stats)


def job_info(tell, rule="attack", message="Attacking alexnet"):
    """As in ``Job.log_info``."""
    files = {"input": ["in.h5"], "output": ["out.h5"], "log": ["job.log"], "benchmark": None, "wildcards": {"seed": "0"}}
    flags = {"local": True, "indent": False, "is_checkpoint": False, "printshellcmd": True, "is_handover": False, "shellcmd": None}
    rest = {"jobid": 3, "rule_msg": message, "rule_name": rule, "reason": "Missing", "resources": {}, "priority": 0, "threads": 1}
    return tell(f" Rule: {rule}, Jobid: 3", LogEvent.JOB_INFO, **files, **flags, **rest)


def job_error(tell, *logs, rule="attack", told=None, indent=False):
    """As in ``Job.log_error``; a cluster's executor ``told`` something, and ``GroupJob.log_error`` has its jobs indented."""
    files = {"input": ["in.h5"], "output": ["out.h5"], "log": list(logs), "conda_env": None, "container_img": None, "aux": {}}
    rest = {"rule_name": rule, "rule_msg": told, "jobid": 3, "indent": indent, "shellcmd": None}
    return tell(f"Error in rule {rule}, jobid: 3", LogEvent.JOB_ERROR, logging.ERROR, **files, **rest)


def test_snakemake_finds_the_plugin_by_its_name_and_it_takes_the_place_of_the_console_output(handler):
    assert LoggerPluginRegistry().get_plugin("pqag").log_handler is plugin.LogHandler
    assert handler.writes_to_stream and not handler.writes_to_file and not handler.needs_rulegraph


def test_every_job_is_a_line_with_the_number_of_finished_jobs_and_its_message(tell, handler):
    assert run_info(tell, attack=2, quantize=1) == "3 jobs to do\n"
    assert job_info(tell) == "[0/3 done, 0:00:00] Attacking alexnet\n"
    assert job_info(tell, message="Attacking vgg16") == "[0/3 done, 0:00:00] Attacking vgg16\n"
    tell("Finished jobid: 3", LogEvent.JOB_FINISHED, job_id=3)
    handler.began -= 3725
    assert job_info(tell, rule="quantize", message=None) == "[1/3 done, 1:02:05] quantize\n"
    assert run_info(tell, attack=2) == "", "it is not repeated after a dry run"
    handler.__init__(None, None)
    assert run_info(tell, table1=1) == "1 job to do\n"
    handler.__init__(None, None)
    assert tell("Job stats", LogEvent.RUN_INFO, stats={"attack": 3, "fetch": 1}) == "4 jobs to do\n"


def test_the_time_left_is_what_is_expected_corrected_by_what_is_done(tell, handler, monkeypatch):
    """Of 1,000 s expected 100 are done, after 200: (200 + 130) / (100 + 130) of the 900 left is 21.5 minutes."""
    monkeypatch.setattr(plugin, "EXPECTED", {3: 100.0, 4: 880.0, 5: 20.0})
    run_info(tell, attack=3)
    assert job_info(tell) == "[0/3 done, 0:00:00] Attacking alexnet\n"
    handler.began -= 200
    tell("Finished jobid: 3", LogEvent.JOB_FINISHED, job_id=3)
    assert job_info(tell) == "[1/3 done, 0:03:20, about 22 min left] Attacking alexnet\n"
    tell("Finished jobid: 4", LogEvent.JOB_FINISHED, job_id=4)
    assert job_info(tell) == "[2/3 done, 0:03:20, nearly done] Attacking alexnet\n"
    monkeypatch.setattr(plugin, "EXPECTED", {3: 980.0, 4: 20000.0})
    assert ", about 4 h left]" in job_info(tell)


def test_the_warnings_of_a_job_are_shown_when_it_has_finished(tell, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "job.log").write_text("2026-11-26 17:00:00,123 warning: 2 images\n2026-11-26 17:00:01,000 a warning: no\n")
    job_info(tell)
    assert tell("Finished jobid: 3", LogEvent.JOB_FINISHED, job_id=3) == "  warning: 2 images\n  log: job.log\n"
    assert tell("Finished jobid: 3", LogEvent.JOB_FINISHED, job_id=3) == ""


def test_whatever_a_log_looks_like_its_error_is_found(tell, tmp_path):
    """Blank lines, no text in UTF-8, a folder with a space, and the remark of ``fmt_iofile`` on files in a storage."""
    log = tmp_path / "my results/a.log"
    log.parent.mkdir()
    for content in (b"x error: what is wrong\n\n  \n", b"\xff\xfe error: what is wrong\n"):
        log.write_bytes(content)
        for name in (str(log), f"{log} (send to storage)"):
            assert job_error(tell, name) == f"attack failed: what is wrong\n  log: {log}\n"
    log = tmp_path / "attack.log"
    log.write_text("2020-01-01 10:00:00,000 torch on cpu\n2020-01-01 10:00:01,000 error: device is no good: error: twice\n")
    assert job_error(tell, str(log)) == f"attack failed: device is no good: error: twice\n  log: {log}\n"


@pytest.mark.parametrize("content", [None, "", "\n \n", "2020-01-01 10:00:00,000 torch 2.0 on cpu, 2 threads\n"])
def test_a_job_that_wrote_no_error_was_probably_killed(tell, tmp_path, content):
    """Its last remark is none: a step writes "torch ... on cpu" first, and a kill then leaves no error in the log."""
    log = tmp_path / "a.log"
    if content is not None:
        log.write_text(content)
    words = job_error(tell, str(log))
    assert words == f"attack failed and left no message in its log ({log}): it was killed, or ran out of memory or disk\n"


def test_the_first_log_with_words_counts(tell, tmp_path):
    (tmp_path / "empty.log").write_text("")
    (tmp_path / "full.log").write_text("x error: here\n")
    words = job_error(tell, str(tmp_path / "nowhere.log"), str(tmp_path / "empty.log"), str(tmp_path / "full.log"))
    assert words == f"attack failed: here\n  log: {tmp_path / 'full.log'}\n"
    assert "attack failed" in (words := job_error(tell)) and "no log" in words


def test_what_a_cluster_says_of_a_job_that_is_silent_is_told(tell, tmp_path):
    told = "SLURM sbatch failed. The error message was 'Invalid partition'.\n    sbatch call: …\n" + plugin.REFERRAL
    words = job_error(tell, str(tmp_path / "a.log"), told=told)
    assert "Invalid partition" in words and words.count("\n") == 1 and "further" not in words
    (tmp_path / "a.log").write_text("x error: what is wrong\n")
    assert job_error(tell, str(tmp_path / "a.log"), told=told).startswith("attack failed: what is wrong\n")


#: Logs of SLURM 22.05, of jobs that ran out of time and of memory, and of one whose step failed by itself.
SLURMS = {
    "JOB 13 ON one CANCELLED AT 2026-11-25T09:17:48 DUE TO TIME LIMIT": "slurmstepd-one: error: *** {} ***\nsrun: forcing an end\n",
    "StepId=3.0 exceeded memory limit (578056192 > 157286400), being killed": "slurmstepd-one: error: {}\n",
    "Exceeded job memory limit": "slurmstepd-one: error: {}\nError in rule attack:\nsrun: error: one: task 0: Exited with exit code 1\n",
    None: "Error in rule attack:\nsrun: error: one: task 0: Exited with exit code 1\n",
}


@pytest.mark.parametrize("words", SLURMS)
def test_why_a_cluster_ended_a_job_is_told(tell, tmp_path, words):
    """Not that its step, which had no time to say anything, exited with a status."""
    log = tmp_path / "13.log"
    log.write_text(SLURMS[words].format(words))
    one = job_error(tell, "nowhere.log", str(log), told="job 13 failed")
    group = group_error(tell, ("attack", "nowhere.log"), aux_logs=[log])
    if words:
        assert one == f"attack failed: the cluster ended it, {words}\n  log: {log}\n"
        assert group == f"a job of 1 step (attack) failed: the cluster ended it, {words}\n  log: {log}\n"
    else:
        assert one == f"attack failed and left no message in its log (nowhere.log, {log}): job 13 failed\n"
        assert "left no message" in group and group.endswith(f"\n  log: {log}\n")


def test_what_a_job_ran_out_of_counts_for_more_than_that_it_was_cancelled(tell, tmp_path):
    log = tmp_path / "13.log"
    log.write_text(
        "slurmstepd: error: *** JOB 13 ON one CANCELLED AT 2026-11-25T09:00:00 DUE TO JOB REQUEUE ***\n"
        "slurmstepd: error: task/cgroup: unable to set memory limit\n"
        "slurmstepd: error: Detected 1 oom_kill event in StepId=13.0\n"
        "slurmstepd: error: *** STEP 13.0 ON one CANCELLED AT 2026-11-25T09:30:00 ***\n"
    )
    assert "the cluster ended it, Detected 1 oom_kill event in StepId=13.0\n" in job_error(tell, str(log))


def test_a_group_that_was_ended_after_a_step_of_it_failed_tells_both(tell, tmp_path):
    (tmp_path / "a.log").write_text("x error: what is wrong\n")
    (tmp_path / "13.log").write_text("slurmstepd: error: *** JOB 13 ON one CANCELLED AT 2026-11-25T09:17:48 DUE TO TIME LIMIT ***\n")
    words = group_error(tell, ("attack", str(tmp_path / "a.log")), ("attack", "nowhere.log"), aux_logs=[tmp_path / "13.log"])
    assert (
        words.startswith("attack failed: what is wrong\n") and "\na job of 2 steps (attack) failed: the cluster ended it, JOB 13" in words
    )


def group_error(tell, *logs, aux_logs=()):
    """As in ``GroupJob.log_error``: the group, then each of its jobs."""
    jobs = [{"rule_name": rule, "log": [str(log)]} for rule, log in logs]
    words = tell("Error in group", LogEvent.GROUP_ERROR, logging.ERROR, groupid="scores", aux_logs=list(aux_logs), job_error_info=jobs)
    return words + "".join(job_error(tell, log, rule=rule, indent=True) for rule, log in logs)


def test_of_a_group_those_speak_that_failed_by_themselves_or_the_group_in_a_sentence(tell, tmp_path):
    (tmp_path / "a.log").write_text("x error: what is wrong\n")
    (tmp_path / "b.log").write_text("torch on cpu\n")
    words = group_error(tell, ("attack", str(tmp_path / "a.log")), ("extract", str(tmp_path / "b.log")), aux_logs=["cluster.log"])
    assert words == f"attack failed: what is wrong\n  log: {tmp_path / 'a.log'}\n"
    silent = [("evaluate", str(tmp_path / "c.log")), ("evaluate_clean", str(tmp_path / "d.log"))]
    words = group_error(tell, *silent, aux_logs=["cluster.log"])
    assert words.startswith("a job of 2 steps (evaluate, evaluate_clean) failed") and words.endswith("\n  log: cluster.log\n")
    assert group_error(tell, silent[0], aux_logs=[None]).startswith("a job of 1 step (evaluate) failed")


NOISE = ["Building DAG of jobs...", "Assuming unrestricted shared filesystem usage.", "host: machine", "Using shell: /usr/bin/bash", ""]
NOISE += ["Singularity containers: ignored", "Provided cores: 8", "Rules claiming more threads will be scaled down."]
NOISE += ["Select jobs to execute...", "Execute 1 jobs...", "Finished jobid: 3 (Rule: attack)", "Complete log(s): x.log"]
NOISE += ["Removing output files of failed job attack since they might be corrupted:\na"]
NOISE += ["Exiting because a job execution failed. Look below for error messages"]


def test_remarks_on_its_own_working_and_what_is_for_debugging_are_left_out(tell):
    assert [tell(message) for message in NOISE] == [""] * len(NOISE)
    assert tell("Full Traceback", level=logging.DEBUG) == ""
    for level in (logging.INFO, logging.WARNING, logging.ERROR):
        assert tell("Nothing to be done (all requested files are present and up to date).", level=level).startswith("Nothing to be done")
        assert tell("config.yaml: device is 'gpu', 50 % of %s\n", level=level) == "config.yaml: device is 'gpu', 50 % of %s\n"
    for event in (LogEvent.SHELLCMD, LogEvent.JOB_STARTED, LogEvent.JOB_FINISHED, LogEvent.PROGRESS, LogEvent.RESOURCES_INFO):
        assert tell("words", event, done=1, total=2, job_id=3) == ""


def test_the_failure_of_a_job_is_not_told_twice_and_other_exceptions_are_shown(tell):
    for exception in ("CalledProcessError", "RuleException"):
        assert tell("Command failed", LogEvent.ERROR, logging.ERROR, exception=exception) == ""
    message = "WorkflowError:\nAt least one job did not complete successfully."
    assert tell(message, LogEvent.ERROR, logging.ERROR, exception="WorkflowError") == ""

    words = "Missing input files for rule attack:\n  data/x.h5"
    for exception in ("WorkflowError", "MissingInputException", "SyntaxError"):
        assert tell(words, LogEvent.ERROR, logging.ERROR, exception=exception) == words + "\n"


@pytest.mark.parametrize(("terminal", "before"), [(True, "\r\033[K"), (False, "")])
def test_on_a_terminal_what_is_left_of_a_progress_bar_is_erased(tell, monkeypatch, terminal, before):
    monkeypatch.setattr(sys.stderr, "isatty", lambda: terminal)
    assert tell("words") == before + "words\n"
    assert tell("Building DAG of jobs...") == ""
