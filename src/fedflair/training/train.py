"""Training in simulated federated learning: set-up, then the visible loop over rounds (``round.py``)."""

from __future__ import annotations

import threading
import time
from collections.abc import Sequence
from contextlib import nullcontext
from functools import partial
from pathlib import Path

from fedflair.backends.choice import choose_backend, require_backend, uses_ray
from fedflair.backends.ray.last_words import last_words
from fedflair.config.train_config import TrainConfig
from fedflair.engine.allocator import keep_freed_memory
from fedflair.errors import Interrupted, WorkerError
from fedflair.privacy.ledger import coverage
from fedflair.privacy.ledger import record as ledger
from fedflair.runs.json_text import strict
from fedflair.runs.tracker import tracker
from fedflair.runs.weights_and_biases import require_wandb
from fedflair.training.beginning import Beginning, begun
from fedflair.training.callback import Callback, RoundDone, asks_to_end
from fedflair.training.checkpoint import save_checkpoint
from fedflair.training.divergence import refuse_divergence
from fedflair.training.on_features import on_features
from fedflair.training.record import evaluated, is_better, round_row, save_best, summarise
from fedflair.training.round import run_round, who_answers
from fedflair.training.secrecy import closed_to_others
from fedflair.training.stopping import out_of_patience, stop_on_signals
from fedflair.training.words import describe_setup, how_to_go_on, lost_words, promise_words, to_be_continued


def train(
    config: TrainConfig,
    command: Sequence[str] | None = None,
    *,
    quiet: bool = False,
    callback: Callback | None = None,
) -> Path:
    """Trains as configured and returns the run folder; see ``runs/folder.py`` for what it holds then.

    command: the words as they were typed, where a command asks for it; the run keeps them. quiet: nothing is said.
    callback: told of each round (``callback.py``); what it raises passes, once a checkpoint of the round is written.
    Raises Interrupted after writing a checkpoint when the process gets SIGINT, SIGTERM, SIGHUP or SIGUSR1, ConfigError
    where the model diverges, and what ``begun`` raises.
    """
    keep_freed_memory()
    require_backend(config)
    if config.run.wandb_project_id is not None:
        require_wandb()
    with (
        begun(config, command) as beginning,
        stop_on_signals(how_to_go_on(beginning.folder)) as stop,
        last_words(lost_words(beginning.folder)) if uses_ray(config) else nullcontext(),
    ):
        _rounds(on_features(beginning, stop, quiet=quiet), stop, callback, quiet=quiet)
    return beginning.folder.path


def _rounds(beginning: Beginning, stop: threading.Event, callback: Callback | None, *, quiet: bool) -> None:
    """The rounds from the beginning to the end, and the summary."""
    setup, folder, state, facts = beginning.setup, beginning.folder, beginning.state, beginning.facts
    config, states, book = setup.config, beginning.states, beginning.book
    num_rounds, asked, ended = config.algorithm.central_num_iterations, False, False
    promised = coverage.is_promised(setup.mechanism.description, setup.worker.local_mechanism.description)
    with (
        choose_backend(setup, stop) as backend,
        tracker(
            folder,
            num_rounds=num_rounds,
            start_round=state.round,
            private=promised,
            promise=promise_words(setup),
            wandb_project_id=config.run.wandb_project_id,
            quiet=quiet,
        ) as log,
    ):
        log.say("\n".join([describe_setup(setup, state, folder), *beginning.notes]))
        while state.round < num_rounds and not ended and not out_of_patience(config, facts, state.round):
            started, before = time.perf_counter(), state
            try:
                answers = who_answers(setup, state)
                with closed_to_others(setup, folder, state.round):
                    state, cohort_sum = run_round(state, answers.cohort, setup=setup, backend=backend, states=states)
                if book is not None:
                    # Before any checkpoint: no round that was released can be missing from the ledger.
                    book = ledger.append(
                        book, before.round, cohort_sum.cohort, before.mechanism_state, state.mechanism_state
                    )
                row = round_row(setup, state, cohort_sum, answers, time.perf_counter() - started)
                # Its vectors would still be there while the next round trains.
                cohort = cohort_sum.cohort
                del cohort_sum
                if state.round == num_rounds or state.round % config.evaluation.evaluation_frequency == 0:
                    row |= evaluated(setup, state, backend)
            except (Interrupted, WorkerError) as error:
                # The ledger may be a round ahead of this checkpoint: the resumed run does that round again, alike.
                save_checkpoint(folder, before, facts, states)
                raise to_be_continued(error, folder, before.round) from error
            log.log(row)
            refuse_divergence(state, cohort, row, folder)
            score = row.get(f"val/{config.evaluation.best_metric}")
            if better := is_better(score, facts):
                facts |= {"best": strict(score), "best_round": state.round}
            if book is not None:
                facts["ledger"] = book.head
            state = setup.worker.algorithm.observe(state, row)
            facts["seconds"] += time.perf_counter() - started
            if "val/loss" in row:
                save_checkpoint(folder, state, facts, states)
            if better:
                # No model leaves a run before the checkpoint of its round; a resumed run saves what a kill kept back.
                save_best(folder, state, facts)
            done = RoundDone(state.round, num_rounds, row, better, folder.path)
            asked |= asks_to_end(callback, done, partial(save_checkpoint, folder, state, facts, states))
            ended = asked and "val/loss" in row
        try:
            summary = summarise(setup, folder, state.round, facts, backend, beginning.environment)
        except (Interrupted, WorkerError) as error:
            raise to_be_continued(error, folder, state.round) from error
        log.log_test(summary["test"], state.round)
        log.say(
            f"test macro AP {summary['test']['macro_ap']:.4f} (best val round {facts['best_round']}); {folder.path}"
        )
