"""`voxnas dashboard`: live pages of a study. Only this package imports Dash."""
