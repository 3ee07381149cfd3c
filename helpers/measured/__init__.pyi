"""The public names of `helpers.measured`."""

from .protocol import NAMED as NAMED
from .protocol import verdicts as verdicts
from .shipped import head_scores as head_scores
from .shipped import measured_tasks as measured_tasks
from .shipped import ranked_scores as ranked_scores
from .shipped import shipped_record as shipped_record
from .shipped import shipped_roles as shipped_roles
