"""Training in simulated federated learning: set-up, then the visible loop over rounds (``round.py``)."""

from __future__ import annotations

import secrets
import time
from contextlib import nullcontext
from pathlib import Path

from fedflair.backends.choice import choose_backend, require_backend, uses_ray
from fedflair.backends.ray.last_words import last_words
from fedflair.config.train_config import TrainConfig
from fedflair.engine.allocator import keep_freed_memory
from fedflair.engine.flat_model import frozen_tensors
from fedflair.errors import ConfigError, DataError, Interrupted, WorkerError
from fedflair.federated.setup import initial_state, make_setup
from fedflair.privacy.ledger import coverage
from fedflair.privacy.ledger import record as ledger
from fedflair.runs.folder import RunFolder, create_run
from fedflair.runs.tensors import load_tensors, save_tensors
from fedflair.runs.tracker import tracker
from fedflair.runs.weights_and_biases import require_wandb
from fedflair.system.files import sweep
from fedflair.training.checkpoint import load_state, save_state
from fedflair.training.record import evaluated, round_row, save_best, save_checkpoint, summarise
from fedflair.training.round import is_private, run_round, who_answers
from fedflair.training.run_states import check_room, open_run_states
from fedflair.training.stopping import out_of_patience, stop_on_signals
from fedflair.training.words import describe_setup, how_to_go_on, lost_words, to_be_continued


def train(config: TrainConfig) -> Path:
    """Trains as configured and returns the run folder; see ``runs/folder.py`` for what it holds then.

    Raises Interrupted after writing a checkpoint when the process gets SIGINT, SIGTERM, SIGHUP or SIGUSR1.
    """
    keep_freed_memory()
    require_backend(config)
    if config.run.wandb_project_id is not None:
        require_wandb()
    if config.run.resume:
        folder = _run_to_resume(config)
        facts = load_tensors(folder.last)[1]
        setup = make_setup(config, noise_seed=int(facts["noise_seed"]))
        state, facts = load_state(folder.last, setup.worker.device)
        book = ledger.resume(folder.path, state.round, setup.mechanism, setup.noise_seed) if is_private(setup) else None
    else:
        setup = make_setup(config, noise_seed=config.run.seed if config.run.noise_from_seed else secrets.randbits(128))
        state, facts = initial_state(setup), {"best": None, "best_round": 0, "seconds": 0.0}
        check_room(setup, config.run.run or Path("runs"))
        folder = create_run(config)
        save_tensors(folder.fixed, frozen_tensors(setup.worker.module), {})
        book = ledger.create(folder.path, setup.mechanism, setup.noise_seed) if is_private(setup) else None
    facts["noise_seed"] = str(setup.noise_seed)
    save_state(folder.last, state, facts)
    promised = coverage.is_promised(setup.mechanism.description, setup.worker.local_mechanism.description)
    with (
        stop_on_signals(how_to_go_on(folder)) as stop,
        last_words(lost_words(folder)) if uses_ray(config) else nullcontext(),
        choose_backend(setup, stop) as backend,
        tracker(
            folder,
            num_rounds=config.algorithm.central_num_iterations,
            start_round=state.round,
            private=promised,
            wandb_project_id=config.run.wandb_project_id,
        ) as log,
    ):
        states = open_run_states(setup, folder.path, state.round)
        log.say(describe_setup(setup, folder))
        while state.round < config.algorithm.central_num_iterations and not out_of_patience(config, facts, state.round):
            started, before = time.perf_counter(), state
            try:
                answers = who_answers(setup, state)
                state, cohort_sum = run_round(state, answers.cohort, setup=setup, backend=backend, states=states)
                if book is not None:
                    # Before any checkpoint: no round that was released can be missing from the ledger.
                    book = ledger.append(
                        book, before.round, cohort_sum.cohort, before.mechanism_state, state.mechanism_state
                    )
                row = round_row(setup, state, cohort_sum, time.perf_counter() - started) | answers.row()
                # Its vectors would still be there while the next round trains.
                del cohort_sum
                last = state.round == config.algorithm.central_num_iterations
                if last or state.round % config.evaluation.evaluation_frequency == 0:
                    row |= evaluated(setup, state, backend)
            except (Interrupted, WorkerError) as error:
                # The ledger may be a round ahead of this checkpoint: the resumed run does that round again, alike.
                save_checkpoint(folder, before, facts, states)
                raise to_be_continued(error, folder, before.round) from error
            score = row.get(f"val/{config.evaluation.best_metric}")
            if score is not None and (facts["best"] is None or score > facts["best"]):
                facts |= {"best": score, "best_round": state.round}
                save_best(folder, state, facts)
            state = setup.worker.algorithm.observe(state, row)
            facts["seconds"] += time.perf_counter() - started
            log.log(row)
            if "val/loss" in row:
                save_checkpoint(folder, state, facts, states)
        try:
            summary = summarise(setup, folder, state.round, facts, backend)
        except (Interrupted, WorkerError) as error:
            raise to_be_continued(error, folder, state.round) from error
        log.say(
            f"test macro AP {summary['test']['macro_ap']:.4f} (best val round {facts['best_round']}); {folder.path}"
        )
    return folder.path


def _run_to_resume(config: TrainConfig) -> RunFolder:
    if config.run.run is None:
        raise ConfigError("resume: name the run's folder with --run")
    folder = RunFolder(config.run.run)
    if not folder.last.is_file():
        raise DataError(f"{folder.last}: no checkpoint to resume from; remove {folder.path} and start the run again")
    for place in (folder.path, folder.last.parent):
        sweep(place)
    return folder
