"""The public names of `helpers.knob`."""

from .runs import TemperedRun as TemperedRun
from .runs import run_tempered as run_tempered
from .slopes import LossSlopes as LossSlopes
from .slopes import answer_slopes as answer_slopes
from .slopes import loss_slopes as loss_slopes
from .turned import TurnedHead as TurnedHead
from .turned import turn_head as turn_head
