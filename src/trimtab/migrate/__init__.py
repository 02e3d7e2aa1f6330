"""Moving in: what other systems recorded is read where it lies and written into the project's store."""
