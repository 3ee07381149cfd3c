"""The public names of `helpers.reference`."""

from . import published as published
from .circuits import ACRONYMS as ACRONYMS
from .circuits import GREATER_THAN as GREATER_THAN
from .circuits import IOI_CORE as IOI_CORE
from .circuits import IOI_PAPER as IOI_PAPER
from .circuits import IOI_POST as IOI_POST
from .circuits import Circuit as Circuit
from .circuits import from_effects as from_effects
from .demo import causal_edges as causal_edges
from .demo import causal_heads as causal_heads
from .demo import circuit_of as circuit_of
from .measured import MeasuredCircuit as MeasuredCircuit
from .measured import measured_circuit as measured_circuit
from .readings import FLOW as FLOW
from .readings import auroc_interval as auroc_interval
from .readings import directions as directions
from .readings import idle_table as idle_table
from .readings import pair_in_words as pair_in_words
from .readings import prediction_in_words as prediction_in_words
from .readings import published_aurocs as published_aurocs
from .readings import unmoved_in_words as unmoved_in_words
from .readings import working_at_end as working_at_end
