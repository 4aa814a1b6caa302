"""One script per claim of the README, each measuring us and something else in turn, in one run."""
