"""Conformance suites: subclass one, override its fixture, and a back end proves itself."""
