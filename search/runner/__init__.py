"""Running a study: plan, pricer, evaluate, driver, executors."""
