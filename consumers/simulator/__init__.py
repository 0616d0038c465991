"""A simulated fagsystem, for demo and tests: over HTTP and over folders, with an operator's switches."""
