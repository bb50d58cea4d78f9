"""`voxnas dashboard`: the pages of a study, live; the only room that knows Dash."""
