"""The views of a study as pages of components, without a browser: the dashboard and report.html show the same."""
