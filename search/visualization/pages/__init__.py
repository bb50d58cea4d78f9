"""The views of a study as pages of components, which both the dashboard and report.html show."""
