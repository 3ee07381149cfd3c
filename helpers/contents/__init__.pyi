"""The public names of `helpers.contents`."""

from .changes import HeadChanges as HeadChanges
from .changes import record_changes as record_changes
from .outputs import HeadOutputs as HeadOutputs
from .outputs import output_change as output_change
from .outputs import record_outputs as record_outputs
from .roles import assign_roles as assign_roles
from .roles import circuit_roles as circuit_roles
from .roles import head_roles as head_roles
