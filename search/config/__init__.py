"""Study files: parse YAML into a validated `Study`, or report all mistakes at once."""

from search.config.errors import Mistake, UserError
from search.config.load import LoadedStudy, load_study
from search.config.schema import Study
from search.config.training_section import Training

__all__ = ["LoadedStudy", "Mistake", "Study", "Training", "UserError", "load_study"]
