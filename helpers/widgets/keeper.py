"""At most one model in memory."""

from __future__ import annotations

import gc
from collections.abc import Callable
from threading import Lock
from typing import Any

from helpers.models.load import load_model


class ModelKeeper:
    """Holds the model that was asked for last, and lets go of it before another is loaded.

    A model that somebody else holds too (the variable of a notebook, say) stays in memory as long as they hold it.

    Args:
        model: what `load_model` returns, or None.
        load: what makes a model of a name.
    """

    def __init__(self, model: Any = None, load: Callable[[str], Any] = load_model) -> None:
        self._model, self._load, self._lock = model, load, Lock()

    def held(self, name: str) -> Any:
        """The model of that name, if it is in memory; else None."""
        model = self._model
        return model if model is not None and model.name == name else None

    def get(self, name: str) -> Any:
        """The model of that name, loaded if need be; a second caller waits for the first.

        Raises:
            ModelUnavailable: as `load_model`; no model is held then.
        """
        with self._lock:
            if self.held(name) is None:
                if self._model is not None:
                    self._model = None
                    gc.collect()  # a model is full of circles
                self._model = self._load(name)
            return self._model
