"""One file a command of the command line: it reads arguments, calls the rooms below, and prints."""

COMMANDS = {
    "download": "fetch the real dataset, resumable and verified",
    "prepare": "turn any FLAIR files into one packed store",
    "synthesize": "make a FLAIR-like dataset with no network",
    "describe": "show a store's statistics",
    "convert": "rewrite a store in another tool's layout, or back",
    "train": "train in simulated federated learning",
    "evaluate": "score a run's best model on a partition",
    "predict": "show a trained model photographs",
    "export": "hand a trained model on, for plain PyTorch too",
    "sweep": "train a grid or random samples of options, with several seeds",
    "reproduce": "a row of the published benchmark, from download to score",
    "options": "show every option, what it may be and what it means",
    "report": "compare runs in one HTML page",
    "epsilon": "ask the privacy accountant",
    "mechanisms": "compare what mechanisms add at a privacy budget",
    "ledger": "verify a run's privacy ledger",
    "audit": "measure what the privacy path really gives",
    "completion": "print what completes commands and options in a shell",
}
"""Name -> purpose, in the order in which they are shown."""
