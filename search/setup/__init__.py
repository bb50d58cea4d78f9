"""The first steps on a machine and on new data: write a study for them, and test the environment."""
