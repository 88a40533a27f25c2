"""The package's exceptions. Each message is one line that names what is wrong, where, and what to do.

FedflairError
├── ConfigError      an option is unknown, impossible, or contradicts another one
│   └── UsageError   which is seen before anything else is looked at
├── DataError        a file or a record is not what it should be
│   └── DiskError    a file cannot be written or read: the disk, its permissions, a limit
├── PrivacyError     what was asked for cannot be promised
├── WorkerError      a client's training failed, or its workers were lost again and again
└── Interrupted      the user stopped a run; a checkpoint was written
"""


class FedflairError(Exception):
    """Base of every error a user can act on; the command line prints its message and exits with status 1.

    of_client: it came from the work on a client, whom its message may name.
    """

    of_client = False


class ConfigError(FedflairError):
    """An option is unknown, impossible, or contradicts another option."""


class UsageError(ConfigError):
    """The words of a command, or the options in a file that it names, are off; the command line exits with status 2."""


class DataError(FedflairError):
    """A file or a record is not what it should be; the message names the file and the row."""


class DiskError(DataError):
    """A file cannot be written or read, whatever is in it; the message names the file, why, and what to do."""


class PrivacyError(FedflairError):
    """A privacy guarantee that was asked for cannot be given."""


class WorkerError(FedflairError):
    """The work on a client failed; the message names the client, the error, and the log where there is one."""


class Interrupted(FedflairError):
    """The user stopped a run; the message names the checkpoint to resume from."""
