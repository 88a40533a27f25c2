"""The runs of a sweep: many training runs, each in a process of its own, resumable, compared by mean and deviation.

SWEEP/
    configs/RUN.yaml    what each run was given
    runs/RUN/           the run folders
    logs/RUN.log        what each run printed
    sweep.json, .csv, .md    the results so far, written again after each run

The same command continues a sweep: finished runs are kept, stopped ones resumed, failed ones tried again. A run that
crashes takes nothing else with it: it is noted, and the sweep goes on.
"""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path

import yaml

from fedflair.errors import FedflairError, Interrupted
from fedflair.evaluation.start import open_start
from fedflair.federated.setup import make_setup
from fedflair.runs.configuration import check_same_run
from fedflair.runs.folder import RunFolder
from fedflair.sweep.plan import Trial
from fedflair.sweep.results import Outcome, outcome_of, plus_minus, spread, words_of, write_results
from fedflair.system.files import disk_errors, write_atomically
from fedflair.system.locks import Held, locked, name_owner
from fedflair.system.processes import stopping_signals

# A run of a sweep that is killed is told to end, and has a checkpoint to go on from.
_CHILD = """
import signal, sys
from fedflair.system.processes import end_with_parent
end_with_parent(int(sys.argv[1]), signal.SIGTERM)
from fedflair.cli import main
sys.exit(main(sys.argv[2:]))
"""


@dataclass(frozen=True)
class SweepFolder:
    """Paths inside one sweep folder."""

    path: Path

    def config(self, trial: Trial) -> Path:
        return self.path / "configs" / f"{trial.name}.yaml"

    def log(self, trial: Trial) -> Path:
        return self.path / "logs" / f"{trial.name}.log"

    def run(self, trial: Trial) -> RunFolder:
        return RunFolder(self.path / "runs" / trial.name)


@dataclass
class Stop:
    """What a signal to the sweep has to reach: the run at work, if there is one."""

    asked: bool = False
    child: subprocess.Popen[bytes] | None = None


def run_trials(trials: Sequence[Trial], output: Path, say: Callable[[str], None]) -> list[Outcome]:
    """Runs what of the trials has not been run in the sweep folder ``output``, and returns what came out of each.

    say: is told, in a line, of each run as it starts and ends.
    Raises ConfigError, DataError or PrivacyError before the first run starts where any run could not start; Interrupted
    where the sweep was stopped.
    """
    folder = SweepFolder(output)
    check_trials(trials, folder)
    with disk_errors(output):
        for name in ("configs", "logs", "runs"):
            (output / name).mkdir(parents=True, exist_ok=True)
    with _only_sweep(output, say) as lock, _signals_to_child() as stop:
        # Read once: nothing but this sweep changes them from here on.
        outcomes = [outcome_of(folder.run(trial), folder.log(trial)) for trial in trials]
        for position, trial in enumerate(trials):
            if stop.asked:
                break
            before = f"[{position + 1}/{len(trials)}] {trial.point}, seed {trial.seed}: "
            if outcomes[position].status != "done":
                say(f"{before}{_start(folder.run(trial))}")
                started = time.monotonic()
                _run_trial(trial, folder, lock, stop)
                before += f"{(time.monotonic() - started) / 60:.1f} min, "
                outcomes[position] = outcome_of(folder.run(trial), folder.log(trial))
                write_results(output, trials, outcomes)
            say(f"{before}{_words(trial, outcomes[position])}")
        write_results(output, trials, outcomes)
    if stop.asked:
        raise Interrupted(f"the sweep in {output} is stopped; the same command continues it")
    return outcomes


def check_trials(trials: Sequence[Trial], folder: SweepFolder) -> None:
    """Sets up each point that is not done, as its run will. Raises what the run would, naming the point."""
    checked = set()
    for trial in trials:
        run = folder.run(trial)
        try:
            if run.config.is_file():
                check_same_run(trial.config, run)
            if trial.point not in checked and not run.summary.is_file():
                make_setup(trial.config, noise_seed=0, start=open_start(trial.config))
                checked.add(trial.point)
        except FedflairError as error:
            raise type(error)(f"sweep: {trial.point}: {error}") from error


def _start(run: RunFolder) -> str:
    return "resumed" if run.last.is_file() else "started"


def _run_trial(trial: Trial, folder: SweepFolder, lock: int, stop: Stop) -> None:
    """Trains in a process of its own, whose status the run folder and the log tell."""
    run = folder.run(trial)
    command = [sys.executable, "-c", _CHILD, str(os.getpid()), "train", "--run", str(run.path)]
    if run.last.is_file():
        command.append("--resume")
    else:
        # Killed before its first checkpoint: there is nothing in it to go on from.
        shutil.rmtree(run.path, ignore_errors=True)
        options = {k: v for k, v in trial.config.as_dict().items() if k not in ("run", "resume")}
        write_atomically(folder.config(trial), yaml.safe_dump(options, sort_keys=False))
        command += ["--args_config", str(folder.config(trial))]
    with folder.log(trial).open("ab") as log:
        # A session of its own: Ctrl-C reaches the sweep alone, which passes it on once. The lock goes along, so that
        # the next sweep waits while the run of a killed one writes its checkpoint.
        child = subprocess.Popen(command, stdout=log, stderr=log, start_new_session=True, pass_fds=(lock,))
        name_owner(lock, child.pid)
        stop.child = child
        if stop.asked:
            child.send_signal(signal.SIGINT)
        status = child.wait()
        stop.child = None
        if status < 0:
            log.write(f"fedflair: the process was killed by {signal.Signals(-status).name}\n".encode())


def _words(trial: Trial, outcome: Outcome) -> str:
    if outcome.status != "done":
        return f"{outcome.status}: {outcome.error}"
    metric = trial.config.evaluation.best_metric
    return f"done, {words_of(metric)} on val {plus_minus(spread([outcome.val.get(metric)]), '.4f')}"


@contextmanager
def _only_sweep(output: Path, say: Callable[[str], None]) -> Iterator[int]:
    """Holds the folder's lock, waiting for a sweep (or for the run of a killed one) that is at work in it."""
    path = output / "sweep.lock"
    with ExitStack() as stack:
        try:
            lock = stack.enter_context(locked(path))
        except Held as error:
            who = "another process" if error.pid is None else f"process {error.pid}"
            say(f"waiting for {who}, which is training in {output}")
            lock = stack.enter_context(locked(path, wait=True))
        yield lock


@contextmanager
def _signals_to_child() -> Iterator[Stop]:
    """Passes what stops a training on to the run at work, as SIGINT: it writes a checkpoint and ends."""
    stop = Stop()
    if threading.current_thread() is not threading.main_thread():
        yield stop
        return

    def handle(number: int, frame: object) -> None:
        stop.asked = True
        if stop.child is not None:
            stop.child.send_signal(signal.SIGINT)

    before = {number: signal.signal(number, handle) for number in stopping_signals()}
    try:
        yield stop
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
