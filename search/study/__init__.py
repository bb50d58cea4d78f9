"""Studies: a YAML file read into a checked `Study`, all mistakes at once."""

from search.study.load import LoadedStudy, load_study
from search.study.mistakes import Mistake, UserError
from search.study.schema import Study, Training

__all__ = ["LoadedStudy", "Mistake", "Study", "Training", "UserError", "load_study"]
