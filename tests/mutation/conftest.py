"""The command needs cosmic-ray, which `make test` does not install: pytest shall not import it."""

collect_ignore = ["run.py", "judge.py", "mutants.py"]
