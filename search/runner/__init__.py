"""Working through a study: plan, pricer, evaluate, driver, executors."""
