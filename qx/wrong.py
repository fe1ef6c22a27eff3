"""What a wrong request raises, room by room: each of these, as `UsageError`, becomes one line and exit code 2."""

from envs import MDPError, ObservationError, WorldError
from experiments.claim import DataError
from generative.diffusion.data import DataError as ImagesError
from generative.diffusion.engine.request import RequestError
from generative.diffusion.solvers.solver import SolverError
from generative.language.examples import ExampleError
from generative.language.mazes import MazeError
from generative.language.tokenizer import TokenizerError
from generative.preference.pairs import PairError
from generative.saved import ModelError
from generative.train import TrainError
from lab.checkpoint import CheckpointError
from lab.run import RunError
from rl.agents import AgentError
from rl.dp import DPError
from rl.saved import SavedError

WRONG_REQUEST = (
    WorldError,
    MDPError,
    ObservationError,
    AgentError,
    DPError,
    SavedError,
    RequestError,
    SolverError,
    ExampleError,
    MazeError,
    ModelError,
    TokenizerError,
    PairError,
    TrainError,
    CheckpointError,
    RunError,
    DataError,
    ImagesError,
)
