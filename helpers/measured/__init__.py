"""Measurements of real models that ship with the repository: circuits, scores of heads, roles, attention records."""
