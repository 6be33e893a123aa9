"""Doodles: the built-in dataset, drawn from a seed in photos, sketches and words."""

from .classes import CLASSES, SEEN, UNSEEN
from .sheet import contact_sheet
from .write import DoodlesError, draw_dataset

__all__ = ["CLASSES", "SEEN", "UNSEEN", "DoodlesError", "contact_sheet", "draw_dataset"]
