"""The public names of `helpers.patching`."""

from .attribution import attribute_heads as attribute_heads
from .circuits import find_circuit as find_circuit
from .circuits import fit_to_model as fit_to_model
from .circuits import task_accuracy as task_accuracy
from .heads import PatchingRun as PatchingRun
from .heads import head_effects as head_effects
from .heads import patch_heads as patch_heads
from .pairs import MinimalPairs as MinimalPairs
from .paths import PathRun as PathRun
from .paths import edge_effects as edge_effects
from .paths import patch_paths as patch_paths
