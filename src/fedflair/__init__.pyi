from fedflair.api.accounting import Epsilon as Epsilon
from fedflair.api.accounting import epsilon as epsilon
from fedflair.api.configuration import load_config as load_config
from fedflair.api.predictions import Predictions as Predictions
from fedflair.api.rows import Rows as Rows
from fedflair.api.run import Run as Run
from fedflair.api.run import open_run as open_run
from fedflair.api.run import resume as resume
from fedflair.api.run import train as train
from fedflair.api.scores import Scores as Scores
from fedflair.api.scores import evaluate as evaluate
from fedflair.api.store import open_store as open_store
from fedflair.api.trained import TrainedModel as TrainedModel
from fedflair.api.trained import load_model as load_model
from fedflair.config.train_config import TrainConfig as TrainConfig
from fedflair.data.clients.dataset import Dataset as Dataset
from fedflair.errors import ConfigError as ConfigError
from fedflair.errors import DataError as DataError
from fedflair.errors import DiskError as DiskError
from fedflair.errors import FedflairError as FedflairError
from fedflair.errors import Interrupted as Interrupted
from fedflair.errors import PrivacyError as PrivacyError
from fedflair.errors import UsageError as UsageError
from fedflair.errors import WorkerError as WorkerError
from fedflair.training.callback import RoundDone as RoundDone

__version__: str
