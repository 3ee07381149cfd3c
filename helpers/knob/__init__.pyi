"""The public names of `helpers.knob`."""

from .directions import knob_ratio as knob_ratio
from .lengths import LengthRows as LengthRows
from .lengths import kl_at_lengths as kl_at_lengths
from .lengths import length_slopes as length_slopes
from .predictors import KnobPredictors as KnobPredictors
from .predictors import knob_predictors as knob_predictors
from .response import linear_response as linear_response
from .response import output_response as output_response
from .response import reach as reach
from .response import tempered_kl as tempered_kl
from .runs import TemperedRun as TemperedRun
from .runs import run_tempered as run_tempered
from .slopes import LossSlopes as LossSlopes
from .slopes import answer_slopes as answer_slopes
from .slopes import loss_slopes as loss_slopes
from .turned import TurnedHead as TurnedHead
from .turned import turn_head as turn_head
